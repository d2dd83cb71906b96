package vllm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
)

// structured is what restricts an answer at a server from 0.11 on.
type structured struct {
	JSON       json.RawMessage `json:"json"`
	Regex      *string         `json:"regex"`
	Choice     []string        `json:"choice"`
	Grammar    *string         `json:"grammar"`
	JSONObject *bool           `json:"json_object"`
	Tag        *string         `json:"structural_tag"`
}

// olderGuided is the same at a server before it, by completions alone.
type olderGuided struct {
	JSON    json.RawMessage `json:"guided_json"`
	Regex   *string         `json:"guided_regex"`
	Choice  []string        `json:"guided_choice"`
	Grammar *string         `json:"guided_grammar"`
	Format  struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

// restrict finds the texts that a request may be answered with; nil is all. A
// server passes over the form that is not its version's.
func (f *fake) restrict(raw []byte, native bool, s *structured) ([]string, error) {
	if strings.HasPrefix(f.version, "0.10.") {
		var o olderGuided
		if err := json.Unmarshal(raw, &o); err != nil || native {
			return nil, err
		}
		s = &structured{JSON: o.JSON, Regex: o.Regex, Choice: o.Choice, Grammar: o.Grammar}
		if o.Format.Type == "json_object" {
			on := true
			s.JSONObject = &on
		}
		if o.JSON == nil && o.Regex == nil && o.Choice == nil && o.Grammar == nil && s.JSONObject == nil {
			return nil, nil
		}
	}
	if s == nil {
		return nil, nil
	}
	return s.texts()
}

// texts lists what fits; what has too many forms has a few of them.
func (s *structured) texts() (all []string, err error) {
	kinds := 0
	add := func(texts []string, e error) {
		kinds++
		all, err = texts, errors.Join(err, e)
	}
	if s.JSON != nil {
		add(schemaTexts(s.JSON))
	}
	if s.Regex != nil {
		re, err := syntax.Parse(*s.Regex, syntax.Perl)
		if err != nil {
			return nil, err
		}
		add(regexTexts(re.Simplify()))
	}
	if s.Choice != nil {
		add(s.Choice, nil)
	}
	if s.Grammar != nil {
		var words []string
		for _, q := range regexp.MustCompile(`"[^"]*"`).FindAllString(*s.Grammar, -1) {
			words = append(words, strings.Trim(q, `"`))
		}
		add(words, nil)
	}
	if s.JSONObject != nil {
		add([]string{`{}`, `{"a": 1}`}, nil)
	}
	if s.Tag != nil {
		add(tagTexts(*s.Tag))
	}
	if err == nil && (kinds != 1 || len(all) == 0) {
		err = fmt.Errorf("%d kinds of restriction, %d texts", kinds, len(all))
	}
	return all, err
}

// schemaTexts knows enums, and objects of booleans that are all required.
func schemaTexts(schema []byte) ([]string, error) {
	var s struct {
		Enum       []json.RawMessage
		Properties map[string]struct{ Type string }
	}
	if err := json.Unmarshal(schema, &s); err != nil {
		return nil, err
	}
	var all []string
	for _, v := range s.Enum {
		all = append(all, string(v))
	}
	for name := range s.Properties {
		all = append(all, fmt.Sprintf(`{%q:true}`, name), fmt.Sprintf(`{%q: false}`, name))
	}
	return all, nil
}

func tagTexts(tag string) ([]string, error) {
	var s struct {
		Structures []struct {
			Begin, End string
			Schema     json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(tag), &s); err != nil {
		return nil, err
	}
	var all []string
	for _, t := range s.Structures {
		inner, err := schemaTexts(t.Schema)
		if err != nil {
			return nil, err
		}
		for _, i := range inner {
			all = append(all, t.Begin+i+t.End, "so "+t.Begin+i+t.End)
		}
	}
	return all, nil
}

// regexTexts expands a regular expression without repetition for ever.
func regexTexts(re *syntax.Regexp) ([]string, error) {
	switch re.Op {
	case syntax.OpLiteral:
		return []string{string(re.Rune)}, nil
	case syntax.OpEmptyMatch:
		return []string{""}, nil
	case syntax.OpCharClass:
		var all []string
		for i := 0; i < len(re.Rune); i += 2 {
			for c := re.Rune[i]; c <= re.Rune[i+1] && c < 128; c++ {
				all = append(all, string(c))
			}
		}
		return all, nil
	case syntax.OpCapture:
		return regexTexts(re.Sub[0])
	case syntax.OpConcat, syntax.OpAlternate:
		var all []string
		if re.Op == syntax.OpConcat {
			all = []string{""}
		}
		for _, sub := range re.Sub {
			next, err := regexTexts(sub)
			if err != nil {
				return nil, err
			}
			if re.Op == syntax.OpAlternate {
				all = append(all, next...)
				continue
			}
			var longer []string
			for _, a := range all {
				for _, b := range next {
					longer = append(longer, a+b)
				}
			}
			all = longer
		}
		return all, nil
	}
	return nil, fmt.Errorf("the regular expression %v is beyond this server", re)
}

// fakeText is the text of ids: each is a byte.
func fakeText(ids []int) string {
	b := make([]byte, len(ids))
	for i, id := range ids {
		b[i] = byte(id)
	}
	return string(b)
}

// mask leaves of the logits those of ids that go on towards one of texts, and of
// the end where the answer is one.
func mask(l []float64, texts []string, answer []int) {
	may := map[int]bool{}
	so := fakeText(answer)
	for _, t := range texts {
		switch {
		case t == so:
			may[fakeEOS] = true
		case strings.HasPrefix(t, so):
			may[int(t[len(so)])] = true
		}
	}
	for id := range l {
		if !may[id] {
			l[id] = math.Inf(-1)
		}
	}
}

// turns lets one request run at a time: of those that wait, that with the lowest
// priority, and the first of these.
type turns struct {
	mu struct {
		sync.Mutex
		busy  bool
		queue []turn
		ran   []int // the priorities of those that have waited
	}
}

type turn struct {
	priority int
	begin    chan struct{}
}

func (q *turns) take(priority int) {
	q.mu.Lock()
	if !q.mu.busy {
		q.mu.busy = true
		q.mu.Unlock()
		return
	}
	t := turn{priority, make(chan struct{})}
	at := len(q.mu.queue)
	for at > 0 && q.mu.queue[at-1].priority > priority {
		at--
	}
	q.mu.queue = slices.Insert(q.mu.queue, at, t)
	q.mu.Unlock()
	<-t.begin
}

func (q *turns) give() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.mu.queue) == 0 {
		q.mu.busy = false
		return
	}
	q.mu.ran = append(q.mu.ran, q.mu.queue[0].priority)
	close(q.mu.queue[0].begin)
	q.mu.queue = q.mu.queue[1:]
}

// counts returns how many wait, and the priorities of those that ran, in order.
func (q *turns) counts() (waiting int, ran []int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mu.queue), slices.Clone(q.mu.ran)
}
