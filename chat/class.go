package chat

import (
	"unicode"
)

// classMethod is a method such as isalpha: true if there are characters and all
// are of the class.
func classMethod(fn string, class func(rune) bool) method {
	return func(r *run, self Value, a *args) (Value, error) {
		if err := a.none(fn); err != nil {
			return Value{}, err
		}
		for _, c := range self.str() {
			if !class(c) {
				return Bool(false), nil
			}
		}
		return Bool(self.n > 0), r.step(int(self.n) >> 4)
	}
}

// isDigit is Python's isdigit: decimal digits and those like superscripts.
func isDigit(c rune) bool {
	return unicode.IsDigit(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 || c >= 0x2074 && c <= 0x2079 ||
		c >= 0x2080 && c <= 0x2089 || c >= 0x2460 && c <= 0x2468 || c >= 0x2474 && c <= 0x247c || c >= 0x2488 && c <= 0x2490
}

func strIsprintable(r *run, self Value, a *args) (Value, error) {
	for _, c := range self.str() {
		if !unicode.IsPrint(c) {
			return Bool(false), a.none("isprintable")
		}
	}
	return Bool(true), a.none("isprintable")
}

func strIsascii(_ *run, self Value, a *args) (Value, error) {
	return Bool(isASCII(self.str())), a.none("isascii")
}

func caseMethod(fn string, f func(string) bool) method {
	return func(r *run, self Value, a *args) (Value, error) {
		if err := a.none(fn); err != nil {
			return Value{}, err
		}
		return Bool(f(self.str())), r.step(int(self.n) >> 4)
	}
}

func isUpperRune(c rune) bool { return unicode.IsUpper(c) || unicode.Is(unicode.Other_Uppercase, c) }
func isLowerRune(c rune) bool { return unicode.IsLower(c) || unicode.Is(unicode.Other_Lowercase, c) }

func isUpper(s string) bool {
	cased := false
	for _, c := range s {
		if isLowerRune(c) || unicode.IsTitle(c) {
			return false
		}
		cased = cased || isUpperRune(c)
	}
	return cased
}

func isLower(s string) bool {
	cased := false
	for _, c := range s {
		if isUpperRune(c) || unicode.IsTitle(c) {
			return false
		}
		cased = cased || isLowerRune(c)
	}
	return cased
}

func isTitle(s string) bool {
	cased, previous := false, false
	for _, c := range s {
		switch {
		case isUpperRune(c) || unicode.IsTitle(c):
			if previous {
				return false
			}
			cased, previous = true, true
		case isLowerRune(c):
			if !previous {
				return false
			}
		default:
			previous = false
		}
	}
	return cased
}

func isIdentifier(s string) bool {
	for i, c := range s {
		if c != '_' && !unicode.IsLetter(c) && (i == 0 || !unicode.IsDigit(c) && !unicode.Is(unicode.Mn, c)) {
			return false
		}
	}
	return s != ""
}
