package trace

import (
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// asJSON reads a line the long way.
func asJSON(text []byte) (line, error) {
	var l line
	err := json.Unmarshal(text, &l, jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false))
	return l, err
}

// same compares what was read, whatever memory it lies in.
func same(a, b line) bool {
	a.times, a.counts, b.times, b.counts = [4]float64{}, [5]int64{}, [4]float64{}, [5]int64{}
	return reflect.DeepEqual(a, b)
}

func TestQuick(t *testing.T) {
	for _, tt := range []struct {
		text  string
		quick bool
	}{
		{`{"timestamp":27482,"input_length":6955,"output_length":52,"hash_ids":[46,47,2353]}`, true},
		{`{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353]}`, true},
		{` {"timestamp":0.125,"input_length":1,"output_length":0,"session_id":"s1","turn":3,"delay":1200.5,"request_id":"r","priority":2,"model":"m","finish":"stop","ttft_ms":0.1,"e2e_ms":123456789.123456,"block_size":64}` + "\r", true},
		{`{"hash_ids":[]}`, true},
		{`{"hash_ids":[0]}`, true},
		{`{"hash_ids":[999999999999999999]}`, true},
		{`{"timestamp":0}`, true},
		{`{"timestamp":999999999999999}`, true},
		{`{}`, false},
		{``, false},
		{`[]`, false},
		{`{"timestamp":1e3}`, false},
		{`{"timestamp":-1}`, false},
		{`{"timestamp":01}`, false},
		{`{"timestamp":1.}`, false},
		{`{"timestamp":.5}`, false},
		{`{"timestamp":}`, false},
		{`{"timestamp":1,}`, false},
		{`{"timestamp":1 2}`, false},
		{`{"timestamp":1"turn":2}`, false},
		{`{"timestamp":1000000000000000.5}`, false},
		{`{"input_length":1.5}`, false},
		{`{"turn":1,"turn":2}`, false},
		{`{"hash_ids":[01]}`, false},
		{`{"hash_ids":[01,2]}`, false},
		{`{"hash_ids":[1,,2]}`, false},
		{`{"hash_ids":[,1]}`, false},
		{`{"hash_ids":[1,]}`, false},
		{`{"hash_ids":[-1]}`, false},
		{`{"hash_ids":[18446744073709551615,1]}`, false},
		{`{"hash_ids":[[1]]}`, false},
		{`{"hash_ids":null}`, false},
		{`{"session_id":7}`, false},
		{`{"session_id":"a\u0041"}`, false},
		{`{"session_id":"é"}`, false},
		{`{"other":1,"turn":1}`, false},
		{`{"turn":1}}`, false},
	} {
		var l line
		if got := l.quick([]byte(tt.text)); got != tt.quick {
			t.Errorf("%s: read quickly: %v, want %v", tt.text, got, tt.quick)
		}
		if want, err := asJSON([]byte(tt.text)); tt.quick && (err != nil || !same(l, want)) {
			t.Errorf("%s: got %+v, as JSON %+v, %v", tt.text, l, want, err)
		}
	}
}

// FuzzQuick: what is read quickly is what JSON says.
func FuzzQuick(f *testing.F) {
	f.Add([]byte(`{"timestamp": 27482.5, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353], "session_id": "a"}`))
	f.Add([]byte(`{"turn":10,"delay":0.0,"hash_ids":[0,00]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var l line
		if !l.quick(text) {
			return
		}
		if want, err := asJSON(text); err != nil || !same(l, want) {
			t.Errorf("%q: got %+v, as JSON %+v, %v", text, l, want, err)
		}
	})
}
