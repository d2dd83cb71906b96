package perfmodel

import (
	"bufio"
	"bytes"
	"io"
	"iter"
	"strconv"

	"github.com/go-json-experiment/json"
)

// observationJSON is a line of a log.
type observationJSON struct {
	Chunks   []chunkJSON `json:"chunks,omitzero"`
	Decodes  int         `json:"decodes,omitzero"`
	KVTokens int         `json:"kv_tokens,omitzero"`
	Seconds  float64     `json:"seconds"`
}

type chunkJSON struct {
	New     int `json:"new_tokens"`
	Context int `json:"context_tokens,omitzero"`
}

// AppendLog appends o as a line of a log of steps:
//
//	{"chunks":[{"new_tokens":512,"context_tokens":1024}],"decodes":8,"kv_tokens":9000,"seconds":0.0214}
func AppendLog(dst []byte, o *Observation) ([]byte, error) {
	j := observationJSON{Decodes: o.Batch.Decodes, KVTokens: o.Batch.KVTokens, Seconds: o.Seconds}
	for _, c := range o.Batch.Chunks {
		j.Chunks = append(j.Chunks, chunkJSON(c))
	}
	line, err := json.Marshal(&j)
	if err != nil {
		return dst, err
	}
	return append(append(dst, line...), '\n'), nil
}

// ReadLog reads a log of steps line by line; empty lines are skipped. The first line
// that is wrong ends it with an error that names line and field. A step without any
// work is such a line: it says nothing about a model.
func ReadLog(r io.Reader) iter.Seq2[Observation, error] {
	return func(yield func(Observation, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 0, 4096), maxLineBytes)
		n := 0
		for lines.Scan() {
			n++
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue
			}
			o, err := parseObservation(lines.Bytes())
			if err != nil {
				err = within("line "+strconv.Itoa(n), err)
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Observation{}, within("line "+strconv.Itoa(n+1), err))
		}
	}
}

func parseObservation(line []byte) (Observation, error) {
	var j observationJSON
	if err := json.Unmarshal(line, &j, json.RejectUnknownMembers(true)); err != nil {
		return Observation{}, jsonError(err)
	}
	o := Observation{Batch: Batch{Decodes: j.Decodes, KVTokens: j.KVTokens}, Seconds: j.Seconds}
	for i, c := range j.Chunks {
		at := "chunks[" + strconv.Itoa(i) + "]"
		if err := count(at+".new_tokens", c.New); err != nil {
			return Observation{}, err
		}
		if err := count(at+".context_tokens", c.Context); err != nil {
			return Observation{}, err
		}
		o.Batch.Chunks = append(o.Batch.Chunks, Chunk(c))
	}
	if err := count("decodes", j.Decodes); err != nil {
		return Observation{}, err
	}
	if err := count("kv_tokens", j.KVTokens); err != nil {
		return Observation{}, err
	}
	if _, ok := row(&o.Batch, true); !ok {
		return Observation{}, invalid("", "the step has neither new tokens nor decoding sequences")
	}
	return o, measured("seconds", o.Seconds)
}

func count(field string, n int) error {
	if n < 0 || n > MaxTokens {
		return invalid(field, "must be between 0 and %d, is %d", MaxTokens, n)
	}
	return nil
}
