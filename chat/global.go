package chat

import (
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// globals are the functions a template can call by name.
var globals map[string]Value

func init() {
	globals = map[string]Value{}
	for name, call := range map[string]method{
		"range":           globalRange,
		"dict":            globalDict,
		"namespace":       globalNamespace,
		"cycler":          globalCycler,
		"joiner":          globalJoiner,
		"raise_exception": raiseException,
		"strftime_now":    strftimeNow,
		"lipsum": func(*run, Value, *args) (Value, error) {
			return Value{}, fault("lipsum is not supported: it is random")
		},
	} {
		globals[name] = bound(name, Value{}, call)
	}
}

func globalRange(_ *run, _ Value, a *args) (Value, error) {
	got, err := a.take("range", 1, "/start", "/stop", "/step")
	if err != nil {
		return Value{}, err
	}
	if got[1].k == kMissing {
		got[0], got[1] = Int(0), got[0]
	}
	if got[2].k == kMissing {
		got[2] = Int(1)
	}
	for _, v := range got[:3] {
		if v.k != kInt && v.k != kBool {
			return Value{}, fault("'%s' object cannot be interpreted as an integer", v.typeName())
		}
	}
	g := &rangeValue{got[0].n, got[1].n, got[2].n}
	if g.step == 0 {
		return Value{}, fault("range() arg 3 must not be zero")
	}
	if n := g.length(); n < 0 || n > maxRange {
		return Value{}, fault("Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
	}
	return Value{k: kRange, p: unsafe.Pointer(g)}, nil
}

// newDict is dict(…): of a dict, of pairs, of keywords.
func (r *run) newDict(fn string, a *args) (*Dict, error) {
	if len(a.pos) > 1 {
		return nil, fault("%s expected at most 1 argument, got %d", fn, len(a.pos))
	}
	d := NewDict(len(a.named))
	if len(a.pos) == 1 {
		from := a.pos[0]
		if from.k == kDict {
			if err := r.room(48 * from.dict().Len()); err != nil {
				return nil, err
			}
			for _, e := range from.dict().entries {
				d.add(e.key, e.value)
			}
		} else if err := r.fillPairs(d, from); err != nil {
			return nil, err
		}
	}
	for _, n := range a.named {
		d.Set(n.name, n.v)
	}
	return d, nil
}

func (r *run) fillPairs(d *Dict, from Value) error {
	list, err := r.listOf(from)
	if err != nil {
		return err
	}
	for i, item := range list {
		pair, err := r.listOf(item)
		if err != nil {
			return fault("cannot convert dictionary update sequence element #%d to a sequence", i)
		}
		if len(pair) != 2 {
			return fault("dictionary update sequence element #%d has length %d; 2 is required", i, len(pair))
		}
		if err := r.put(d, pair[0], pair[1]); err != nil {
			return err
		}
	}
	return r.room(48 * len(list))
}

func globalDict(r *run, _ Value, a *args) (Value, error) {
	d, err := r.newDict("dict", a)
	if err != nil {
		return Value{}, err
	}
	return d.Value(), nil
}

func dictFromkeys(r *run, _ Value, a *args) (Value, error) {
	got, err := a.take("fromkeys", 1, "/iterable", "/value")
	if err != nil {
		return Value{}, err
	}
	list, err := r.listOf(got[0])
	if err != nil {
		return Value{}, err
	}
	d := NewDict(0)
	for _, key := range list {
		if err := r.put(d, key, orNone(got[1])); err != nil {
			return Value{}, err
		}
	}
	return d.Value(), nil
}

func globalNamespace(r *run, _ Value, a *args) (Value, error) {
	d, err := r.newDict("dict", a)
	if err != nil {
		return Value{}, err
	}
	for _, e := range d.entries {
		if e.key.k == kString && strings.HasPrefix(e.key.str(), "_") {
			return Value{}, underscored(e.key.str())
		}
	}
	return Value{k: kNamespace, p: unsafe.Pointer(d)}, nil
}

func raiseException(r *run, _ Value, a *args) (Value, error) {
	got, err := a.take("raise_exception", 1, "message")
	if err != nil {
		return Value{}, err
	}
	text, err := r.text(got[0])
	if err != nil {
		return Value{}, err
	}
	return Value{}, &TemplateError{Message: text, Raised: true}
}

// object is a cycler or a joiner: the two values that change by being used.
type object struct {
	items []Value // of a cycler
	pos   int
	sep   Value // of a joiner
	used  bool
}

func (o *object) typeName() string {
	if o.items != nil {
		return "Cycler"
	}
	return "Joiner"
}

func globalCycler(_ *run, _ Value, a *args) (Value, error) {
	if len(a.pos) == 0 || len(a.named) > 0 {
		return Value{}, fault("at least one item has to be provided")
	}
	return Value{k: kObject, p: unsafe.Pointer(&object{items: append([]Value{}, a.pos...)})}, nil
}

func globalJoiner(_ *run, _ Value, a *args) (Value, error) {
	got, err := a.take("joiner", 0, "sep")
	if err != nil {
		return Value{}, err
	}
	if got[0].k == kMissing {
		got[0] = String(", ")
	}
	return Value{k: kObject, p: unsafe.Pointer(&object{sep: got[0]})}, nil
}

func (o *object) call(a *args) (Value, error) {
	if o.items != nil {
		return Value{}, fault("'Cycler' object is not callable")
	}
	if !o.used {
		o.used = true
		return String(""), a.none("Joiner.__call__")
	}
	return o.sep, a.none("Joiner.__call__")
}

func (o *object) attribute(name string) (Value, bool) {
	self := Value{k: kObject, p: unsafe.Pointer(o)}
	switch {
	case o.items == nil && name == "sep":
		return o.sep, true
	case o.items == nil && name == "used":
		return Bool(o.used), true
	case o.items == nil:
		return Value{}, false
	}
	switch name {
	case "current":
		return o.items[o.pos], true
	case "pos":
		return Int(int64(o.pos)), true
	case "items":
		return List(o.items...), true
	case "next":
		return bound(name, self, func(_ *run, self Value, a *args) (Value, error) {
			o := self.object()
			v := o.items[o.pos]
			o.pos = (o.pos + 1) % len(o.items)
			return v, a.none("next")
		}), true
	case "reset":
		return bound(name, self, func(_ *run, self Value, a *args) (Value, error) {
			self.object().pos = 0
			return None(), a.none("reset")
		}), true
	}
	return Value{}, false
}

func strftimeNow(r *run, _ Value, a *args) (Value, error) {
	got, err := a.take("strftime_now", 1, "format")
	if err != nil {
		return Value{}, err
	}
	format, err := wantString(got[0], "strftime")
	if err != nil {
		return Value{}, err
	}
	if err := r.room(16 * len(format)); err != nil {
		return Value{}, err
	}
	return String(strftime(r.input.Now, format)), nil
}

// strftime is the C library's in the C locale.
func strftime(now time.Time, format string) string {
	var b []byte
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b = append(b, format[i])
			continue
		}
		i++
		// glibc's flags: no padding, or padding with blanks or zeros.
		pad, flag := byte(0), 0
		if strings.IndexByte("-_0", format[i]) >= 0 && i+1 < len(format) {
			pad, flag = format[i], 1
			i++
		}
		text, ok := timeField(now, format[i], pad)
		if !ok {
			text = format[i-1-flag : i+1]
		}
		b = append(b, text...)
	}
	return string(b)
}

// timeLayouts are the directives that package time can print.
var timeLayouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'p': "PM", 'c': "Mon Jan _2 15:04:05 2006",
	'x': "01/02/06", 'D': "01/02/06", 'X': "15:04:05", 'T': "15:04:05", 'R': "15:04", 'F': "2006-01-02", 'r': "03:04:05 PM",
}

func timeField(t time.Time, c, pad byte) (string, bool) {
	if layout, ok := timeLayouts[c]; ok {
		return t.Format(layout), true
	}
	number := func(n, width int, own byte) (string, bool) { return padNumber(n, width, own, pad), true }
	isoYear, isoWeek := t.ISOWeek()
	switch c {
	case '%':
		return "%", true
	case 'n':
		return "\n", true
	case 't':
		return "\t", true
	case 'd':
		return number(t.Day(), 2, '0')
	case 'e':
		return number(t.Day(), 2, '_')
	case 'm':
		return number(int(t.Month()), 2, '0')
	case 'y':
		return number(t.Year()%100, 2, '0')
	case 'Y':
		return number(t.Year(), 1, '0')
	case 'C':
		return number(t.Year()/100, 2, '0')
	case 'H':
		return number(t.Hour(), 2, '0')
	case 'k':
		return number(t.Hour(), 2, '_')
	case 'I':
		return number((t.Hour()+11)%12+1, 2, '0')
	case 'l':
		return number((t.Hour()+11)%12+1, 2, '_')
	case 'M':
		return number(t.Minute(), 2, '0')
	case 'S':
		return number(t.Second(), 2, '0')
	case 'f':
		return number(t.Nanosecond()/1000, 6, '0')
	case 'j':
		return number(t.YearDay(), 3, '0')
	case 'u':
		return number((int(t.Weekday())+6)%7+1, 1, '0')
	case 'w':
		return number(int(t.Weekday()), 1, '0')
	case 'U':
		return number((t.YearDay()+6-int(t.Weekday()))/7, 2, '0')
	case 'W':
		return number((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0')
	case 'G':
		return number(isoYear, 1, '0')
	case 'g':
		return number(isoYear%100, 2, '0')
	case 'V':
		return number(isoWeek, 2, '0')
	case 's':
		return strconv.FormatInt(t.Unix(), 10), true
	case 'Z', 'z':
		return "", true // datetime.now() has no zone
	}
	return "", false
}

// padNumber prints n at least width wide, padded with own unless pad, the flag
// of the directive, asks for another ('-' is none).
func padNumber(n, width int, own, pad byte) string {
	if pad == '0' || pad == '_' {
		own = pad
	}
	s := strconv.Itoa(n)
	for pad != '-' && len(s) < width {
		if own == '_' {
			s = " " + s
		} else {
			s = "0" + s
		}
	}
	return s
}
