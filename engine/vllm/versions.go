package vllm

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// version is a release of vLLM; what follows the third number is not looked at.
type version [3]int

// parseVersion reads "0.32.0", "0.19.1rc1.dev27+gabc" and the like.
func parseVersion(s string) (v version, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) < 2 {
		return v, false
	}
	for i, p := range parts {
		end := 0
		for end < len(p) && end < 6 && p[end] >= '0' && p[end] <= '9' {
			end++
		}
		if end == 0 {
			return v, i == 2
		}
		v[i], _ = strconv.Atoi(p[:end]) // digits they are
	}
	return v, true
}

func (v version) before(w version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] < w[i]
		}
	}
	return false
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// The versions this package was written for.
var (
	// oldest has return_token_ids on /v1/completions, without which no ids come out.
	oldest = version{0, 10, 2}
	// newest is the newest one that was looked at.
	newest = version{0, 32, 0}
)

// paramsPassed is the first version whose /inference/v1/generate passes transfer
// parameters on; /v1/completions does in all.
var paramsPassed = version{0, 29, 0}

func passesNoParams(s string) bool {
	v, ok := parseVersion(s)
	return ok && v.before(paramsPassed)
}

// metricNames are what a version calls what is read of its metrics.
type metricNames struct {
	running, waiting, usage, steps, config string
}

var currentNames = metricNames{
	running: "vllm:num_requests_running", waiting: "vllm:num_requests_waiting",
	usage: "vllm:kv_cache_usage_perc", steps: "vllm:iteration_tokens_total_count", config: "vllm:cache_config_info",
}

// guidedForms is how versions are told what restricts an answer, newest first. Each
// passes over in silence the fields that it does not know, those of the others
// among them, and answers without a restriction.
var guidedForms = []guidedForm{
	{version{0, 11, 0}, true, []dynamo.GuidedKind{
		dynamo.GuidedJSONSchema, dynamo.GuidedJSONObject, dynamo.GuidedRegex, dynamo.GuidedChoice, dynamo.GuidedGrammar, dynamo.GuidedStructuralTag}},
	{oldest, false, []dynamo.GuidedKind{
		dynamo.GuidedJSONSchema, dynamo.GuidedJSONObject, dynamo.GuidedRegex, dynamo.GuidedChoice, dynamo.GuidedGrammar}},
}

// lacks says what versions before since cannot do, oldest first.
var lacks = []struct {
	since version
	what  string
}{
	{version{0, 11, 0}, "guided decoding by structural tags, or with a say in how JSON is written, is refused"},
	{version{0, 14, 0}, "its KV events do not name LoRA adapters: blocks of adapters are not counted"},
	{version{0, 17, 0}, "its KV events do not show cache salts: blocks of tenants are taken for shared ones, though the server does not share them"},
	{version{0, 20, 0}, "its KV events do not tell groups apart: a model with hybrid attention is credited with blocks it cannot use"},
	{paramsPassed, "/inference/v1/generate passes no transfer parameters on"},
}

// examine judges a version: what it lacks, or why it is refused.
func examine(s string) (notes []string, err error) {
	v, ok := parseVersion(s)
	switch {
	case !ok:
		return []string{fmt.Sprintf("its version %q is in no known form; it is taken for %s, the newest known", s, newest)}, nil
	case v.before(oldest):
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(
			"the server is vLLM %s; this needs %s or newer, which returns token ids: upgrade vLLM", s, oldest)}
	case newest.before(v):
		notes = append(notes, fmt.Sprintf("it is newer than %s, the newest version this was written for", newest))
	}
	for _, l := range lacks {
		if v.before(l.since) {
			notes = append(notes, l.what)
		}
	}
	return notes, nil
}
