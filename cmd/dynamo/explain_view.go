package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// explanation is the record of a request as the frontend gives it. Members that are
// not known here are kept, and shown as they came.
type explanation struct {
	Request  string          `json:"request"`
	Model    string          `json:"model"`
	Attempts []attemptRecord `json:"attempts"`
	Rest     extraMembers    `json:",embed"`
}

// extraMembers are the members of an object that have no field.
type extraMembers map[string]jsontext.Value

// attemptRecord is one decision for a request.
type attemptRecord struct {
	At           string            `json:"at"`
	Attempt      int               `json:"attempt"`
	Policy       string            `json:"policy"`
	Seed         jsontext.Value    `json:"seed"`
	QueueMillis  *float64          `json:"queue_ms"`
	PromptTokens int64             `json:"prompt_tokens"`
	Blocks       int64             `json:"blocks"`
	BlockSize    int64             `json:"block_size"`
	Winner       string            `json:"winner"`
	Tie          string            `json:"tie"`
	Sticky       bool              `json:"sticky"`
	Candidates   []candidateRecord `json:"candidates"`
	Others       *othersRecord     `json:"others"`
	Words        []string          `json:"words"`
	Predicted    *float64          `json:"predicted_ttft_ms"`
	Observed     *float64          `json:"observed_ttft_ms"`
	Outcome      string            `json:"outcome"`
	Rest         extraMembers      `json:",embed"`
}

// candidateRecord is a worker, or a rank of one, that could have been chosen.
type candidateRecord struct {
	Worker     string             `json:"worker"`
	Rank       int64              `json:"rank"`
	Verdict    string             `json:"verdict"`
	Overlap    map[string]int64   `json:"overlap"`
	Terms      map[string]float64 `json:"terms"`
	Cost       *float64           `json:"cost"`
	Load       *float64           `json:"load"`
	ReportAge  *float64           `json:"report_age_ms"`
	Confidence *float64           `json:"confidence"`
	Rest       extraMembers       `json:",embed"`
}

// othersRecord are the candidates that the record does not name.
type othersRecord struct {
	Count    int64        `json:"count"`
	BestCost *float64     `json:"best_cost"`
	Rest     extraMembers `json:",embed"`
}

// parseExplanation reads a record.
func parseExplanation(body []byte) (*explanation, error) {
	var x explanation
	if err := json.Unmarshal(body, &x, jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, fmt.Errorf("understand the record: %s; --json prints it as it is", printable(err.Error()))
	}
	return &x, nil
}

const (
	// maxShownCandidates, maxShownKeys and maxShownWords bound what is shown of one
	// attempt; the rest is counted.
	maxShownCandidates = 64
	maxShownKeys       = 12
	maxShownWords      = 32
	// maxShownAttempts bounds the attempts shown of a request.
	maxShownAttempts = 64
	// maxShownValue is how much is shown of a member that is not known here, in cells.
	maxShownValue = 200
)

// lines writes the record for people, in lines of so many cells; 0 sets no bound.
// Where the table of candidates is too wide, columns that add nothing to it are left
// out and the workers' ids cut; it may still be wider.
func (x *explanation) lines(cells int) []string {
	head := "request " + orDash(x.Request) + "   model " + orDash(x.Model)
	if n := len(x.Attempts); n > 1 {
		head += fmt.Sprintf("   %d attempts", n)
	}
	if n := len(x.Attempts); n > 0 && x.Attempts[n-1].Outcome != "" {
		head += "   " + printable(x.Attempts[n-1].Outcome)
	}
	all := []string{head}
	all = append(all, x.Rest.lines("")...)
	if len(x.Attempts) == 0 {
		all = append(all, "no decision was recorded")
	}
	for i := range x.Attempts {
		if i == maxShownAttempts {
			all = append(all, "", fmt.Sprintf("and %d attempts more", len(x.Attempts)-i))
			break
		}
		all = append(all, "")
		all = append(all, x.Attempts[i].lines(i, cells)...)
	}
	return all
}

func (t *attemptRecord) lines(i, cells int) []string {
	number := t.Attempt
	if number == 0 {
		number = i + 1
	}
	head := fmt.Sprintf("attempt %d  at %s  policy %s", number, moment(t.At), orDash(t.Policy))
	if len(t.Seed) > 0 {
		head += "  seed " + rawText(t.Seed)
	}
	prompt := fmt.Sprintf("prompt %d tokens, %d blocks", t.PromptTokens, t.Blocks)
	if t.BlockSize > 0 {
		prompt += fmt.Sprintf(" of %d", t.BlockSize)
	}
	winner := "winner " + orDash(t.Winner)
	if t.Winner == "" {
		winner = "winner none"
	}
	if t.Sticky {
		winner += " (sticky: it served the session before)"
	}
	if t.Tie == "" {
		winner += "  no tie"
	}
	all := []string{head, prompt + "  waited " + optional(t.QueueMillis, millis), winner}
	if t.Tie != "" {
		all = append(all, "tie-break: "+printable(t.Tie))
	}
	if len(t.Candidates) > 0 {
		all = append(all, "")
		all = append(all, t.table(cells)...)
	}
	if o := t.Others; o != nil && o.Count > 0 {
		all = append(all, fmt.Sprintf("   and %d others, the best of them at %s", o.Count, optional(o.BestCost, millis)))
		all = append(all, o.Rest.lines("   ")...)
	}
	all = append(all, "", t.outcome())
	for n, w := range t.Words {
		if n == maxShownWords {
			all = append(all, fmt.Sprintf("  and %d sentences more", len(t.Words)-n))
			break
		}
		for j, line := range wrap(printable(w), cells-2) {
			all = append(all, []string{"- ", "  "}[min(j, 1)]+line)
		}
	}
	return append(all, t.Rest.lines("")...)
}

// outcome sets what was predicted beside what came.
func (t *attemptRecord) outcome() string {
	s := "TTFT predicted " + optional(t.Predicted, millis) + ", observed " + optional(t.Observed, millis)
	if p, o := t.Predicted, t.Observed; p != nil && o != nil && *o > 0 {
		if off := 100 * (*p - *o) / *o; math.Abs(off) < 1e5 {
			s += fmt.Sprintf(" (predicted %+.0f %%)", off)
		}
	}
	if t.Outcome != "" {
		s += "  outcome " + printable(t.Outcome)
	}
	return s
}

// table lists the candidates. The winner bears a star.
func (t *attemptRecord) table(cells int) []string {
	shown := t.Candidates[:min(len(t.Candidates), maxShownCandidates)]
	tiers, terms := map[string]bool{}, map[string]bool{} // name -> some value is not 0
	for i := range shown {
		for k, v := range shown[i].Overlap {
			tiers[k] = tiers[k] || v != 0
		}
		for k, v := range shown[i].Terms {
			terms[k] = terms[k] || v != 0
		}
	}
	lines := t.grid(shown, ordered(tiers, tierOrder), ordered(terms, termOrder), 16)
	if cells > 0 && textWidth(slices.MaxFunc(lines, func(a, b string) int { return textWidth(a) - textWidth(b) })) > cells {
		zero := func(_ string, some bool) bool { return !some }
		maps.DeleteFunc(tiers, zero)
		maps.DeleteFunc(terms, zero)
		lines = t.grid(shown, differing(ordered(tiers, tierOrder), shown), ordered(terms, termOrder), shortID)
	}
	if more := len(t.Candidates) - len(shown); more > 0 {
		lines = append(lines, fmt.Sprintf("   and %d candidates more", more))
	}
	for i := range shown {
		for _, extra := range shown[i].Rest.lines("") {
			lines = append(lines, "   "+cut(orDash(shown[i].Worker), 16)+"  "+extra)
		}
	}
	return lines
}

// The known tiers and terms in the order in which they are shown.
var (
	tierOrder = []string{"device", "host", "disk", "remote"}
	termOrder = []string{"wait_ms", "prefill_ms", "load_ms", "slowdown_ms", "decode_ms", "evict_ms", "late_ms"}
)

// ordered returns the keys of all: the known ones first, then others by name, at
// most maxShownKeys.
func ordered[T any](all map[string]T, known []string) []string {
	var keys []string
	for _, k := range known {
		if _, there := all[k]; there {
			keys = append(keys, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(known, k) {
			keys = append(keys, k)
		}
	}
	return keys[:min(len(keys), maxShownKeys)]
}

// differing leaves out the tiers that say of each candidate what the one before says.
func differing(tiers []string, shown []candidateRecord) []string {
	var kept []string
	for i, k := range tiers {
		if i == 0 || slices.ContainsFunc(shown, func(c candidateRecord) bool { return c.Overlap[k] != c.Overlap[tiers[i-1]] }) {
			kept = append(kept, k)
		}
	}
	return kept
}

// grid lays the candidates out, with so much of their workers' ids.
func (t *attemptRecord) grid(shown []candidateRecord, tiers, terms []string, id int) []string {
	heading := []string{" ", "WORKER", "RANK", "VERDICT"}
	for _, k := range tiers {
		heading = append(heading, strings.ToUpper(cut(printable(k), 12)))
	}
	for _, k := range terms {
		heading = append(heading, strings.ToUpper(cut(printable(strings.TrimSuffix(k, "_ms")), 12)))
	}
	heading = append(heading, "COST ms", "REQS", "AGE", "CONF")
	rows := [][]string{heading}
	for i := range shown {
		c := &shown[i]
		mark := " "
		if t.Winner != "" && c.Worker == t.Winner && t.wins(shown, i) {
			mark = "*"
		}
		row := []string{mark, cut(idText(c.Worker, id), 16), strconv.FormatInt(c.Rank, 10), cut(orDash(c.Verdict), 24)}
		for _, k := range tiers {
			row = append(row, present(c.Overlap, k, func(n int64) string { return quantity(float64(n)) }))
		}
		for _, k := range terms {
			row = append(row, present(c.Terms, k, shortMillis))
		}
		row = append(row, optional(c.Cost, shortMillis), optional(c.Load, quantity), optional(c.ReportAge, func(f float64) string { return shortAge(wholeMillis(f)) }), optional(c.Confidence, percent))
		rows = append(rows, row)
	}
	return grid(rows, func(column int) bool { return column == 2 || column > 3 })
}

// wins says whether candidate i is the one of the winner's ranks that won: the
// cheapest.
func (t *attemptRecord) wins(shown []candidateRecord, i int) bool {
	cost := func(c *candidateRecord) float64 {
		if c.Cost == nil {
			return math.Inf(1)
		}
		return *c.Cost
	}
	for j := range shown {
		if shown[j].Worker == t.Winner && (cost(&shown[j]) < cost(&shown[i]) || j < i && cost(&shown[j]) == cost(&shown[i])) {
			return false
		}
	}
	return true
}

// lines writes members that are not known here.
func (e extraMembers) lines(indent string) []string {
	var all []string
	for n, k := range slices.Sorted(maps.Keys(e)) {
		if n == maxShownKeys {
			return append(all, fmt.Sprintf("%sand %d members more", indent, len(e)-n))
		}
		all = append(all, indent+cut(printable(k), 40)+": "+rawText(e[k]))
	}
	return all
}

// rawText writes a JSON value in one line; a string is written without its quotes.
func rawText(v jsontext.Value) string {
	if v.Kind() == '"' {
		if b, err := jsontext.AppendUnquote(nil, v); err == nil {
			return cut(printable(string(b)), maxShownValue)
		}
	}
	v = v.Clone()
	if err := v.Compact(); err != nil {
		return "?"
	}
	return cut(printable(string(v)), maxShownValue)
}

func optional(f *float64, write func(float64) string) string {
	if f == nil {
		return "–"
	}
	return write(*f)
}

func present[T any](all map[string]T, key string, write func(T) string) string {
	v, there := all[key]
	if !there {
		return "–"
	}
	return write(v)
}

func millis(f float64) string { return shortMillis(f) + " ms" }

// wholeMillis is a time in whole milliseconds; one that is none counts as unknown.
func wholeMillis(f float64) int64 {
	if !(f >= 0 && f < 1e15) {
		return -1
	}
	return int64(f)
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return printable(s)
}

// moment writes a time of day; what is none is written as it came.
func moment(s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return orDash(s)
	}
	return t.Format("15:04:05.000")
}
