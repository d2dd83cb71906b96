package main

import (
	"fmt"
	"math"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// maxCellRunes is how much of a text from a server is shown in one place; the rest
// is cut off.
const maxCellRunes = 512

// printable makes a text from a server fit for a terminal: one line without control
// characters, escape sequences or marks that turn the direction of writing, of at
// most maxCellRunes.
func printable(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == maxCellRunes {
			b.WriteRune('…')
			break
		}
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			r = ' '
		case r >= 0xfe00 && r <= 0xfe0f, unicode.Is(unicode.Cf, r): // these say how others look
			continue
		case r == unicode.ReplacementChar, r != ' ' && !unicode.IsPrint(r):
			r = '·'
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}

// runeWidth is the number of a terminal's cells that a rune takes.
func runeWidth(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

func textWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// cut returns the beginning of s that fits into so many cells, with an ellipsis for
// what does not.
func cut(s string, cells int) string {
	if textWidth(s) <= cells {
		return s
	}
	if cells <= 0 {
		return ""
	}
	return s[:prefix(s, cells-1)] + "…"
}

// prefix is the length in bytes of what of s fits into so many cells.
func prefix(s string, cells int) int {
	n := 0
	for i, r := range s {
		if n += runeWidth(r); n > cells {
			return i
		}
	}
	return len(s)
}

// fit returns s in exactly so many cells.
func fit(s string, cells int, right bool) string {
	s = cut(s, cells)
	gap := strings.Repeat(" ", max(0, cells-textWidth(s)))
	if right {
		return gap + s
	}
	return s + gap
}

// bar draws a share as a bar; one that is not known is drawn as dots.
func bar(share float64, cells int) string {
	if cells <= 0 {
		return ""
	}
	if !(share >= 0) {
		return strings.Repeat("·", cells)
	}
	full := int(min(share, 1)*float64(cells) + 0.5)
	if full == 0 && share > 0 {
		full = 1
	}
	return strings.Repeat("█", full) + strings.Repeat("░", cells-full)
}

// percent writes a share in at most four characters.
func percent(share float64) string {
	switch {
	case !(share >= 0):
		return "–"
	case share > 9.99:
		return ">999%"
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}

// ratio is a/b, or NaN if that says nothing.
func ratio[T int | uint64 | int64 | float64](a, b T) float64 {
	if b <= 0 || a < 0 {
		return math.NaN()
	}
	return float64(a) / float64(b)
}

// quantity writes a count in at most five characters.
func quantity(f float64) string {
	a := math.Abs(f)
	switch {
	case !(a < 1e15):
		return "huge"
	case a < 1e4:
		return fmt.Sprintf("%.0f", f)
	}
	for _, unit := range []string{"k", "M", "G", "T"} {
		if f, a = f/1e3, a/1e3; a < 99.95 {
			return fmt.Sprintf("%.1f%s", f, unit)
		} else if a < 1000 {
			return fmt.Sprintf("%.0f%s", f, unit)
		}
	}
	return fmt.Sprintf("%.0fT", f)
}

// perSecond writes a rate.
func perSecond(f float64) string {
	if f < 99.95 {
		return fmt.Sprintf("%.1f", f)
	}
	return quantity(f)
}

// shortMillis writes milliseconds in about five characters and without a unit; a
// time that is long for the place gets one.
func shortMillis(ms float64) string {
	a := math.Abs(ms)
	switch {
	case !(a < 1e9):
		return "huge"
	case a < 9.995:
		return fmt.Sprintf("%.2f", ms)
	case a < 99.95:
		return fmt.Sprintf("%.1f", ms)
	case a < 1e5:
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.0fs", ms/1e3)
}

// shortAge writes an age in at most five characters.
func shortAge(ms int64) string {
	switch {
	case ms < 0:
		return "never"
	case ms < 1000:
		return fmt.Sprintf("%dms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.1fs", float64(ms)/1000)
	case ms < 600_000:
		return fmt.Sprintf("%ds", ms/1000)
	case ms < 36_000_000:
		return fmt.Sprintf("%dm", ms/60_000)
	case ms < 3_600_000*999:
		return fmt.Sprintf("%dh", ms/3_600_000)
	}
	return "long"
}

// grid lays cells out in columns as wide as the widest of each; the columns that
// right names are set to the right. The first row is the heading.
func grid(rows [][]string, right func(column int) bool) []string {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], min(textWidth(cell), maxGridCells))
		}
	}
	lines := make([]string, len(rows))
	for n, r := range rows {
		parts := make([]string, len(r))
		for i, cell := range r {
			parts[i] = fit(cell, widths[i], right(i))
		}
		lines[n] = strings.TrimRight(strings.Join(parts, "  "), " ")
	}
	return lines
}

// maxGridCells bounds the width of a column of a grid.
const maxGridCells = 40

// wrap breaks a text into lines of at most so many cells, between words where it
// can.
func wrap(s string, cells int) []string {
	if cells < 1 {
		return []string{s}
	}
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(s) {
		w := textWidth(word)
		if used > 0 && used+1+w > cells {
			lines = append(lines, line)
			line, used = "", 0
		}
		for w > cells { // a word longer than a line
			n := prefix(word, cells)
			if n == 0 { // not even its first character fits
				break
			}
			lines = append(lines, word[:n])
			word = word[n:]
			w = textWidth(word)
		}
		if used > 0 {
			line += " "
			used++
		}
		line += word
		used += w
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}
