package perfmodel

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Format is the first member of a model file: its form and version.
const Format = "dynamo-perfmodel/1"

// File is a model with what it is about. On disk it is JSON,
//
//	{"format": "dynamo-perfmodel/1", "name": "…", "source": "…", KIND: {…}}
//
// where KIND is one of closed_form (the six coefficients of ClosedForm, all
// present), polynomial (kv_capacity_tokens) and table (prefill, and decode points or
// a decode_grid over sequences and context_tokens of each). Unknown and doubled
// members are refused by name.
type File struct {
	// Name says which machine and model this is; Source where the figures are from.
	Name, Source string
	Model        Model
}

type fileJSON struct {
	Format     string             `json:"format"`
	Name       string             `json:"name,omitzero"`
	Source     string             `json:"source,omitzero"`
	ClosedForm map[string]float64 `json:"closed_form,omitzero"`
	Polynomial *Polynomial        `json:"polynomial,omitzero"`
	Table      *tableJSON         `json:"table,omitzero"`
}

type tableJSON struct {
	Prefill PrefillGrid   `json:"prefill"`
	Decode  []DecodePoint `json:"decode,omitzero"`
	Grid    *decodeGrid   `json:"decode_grid,omitzero"`
}

// decodeGrid holds seconds[i][j] for sequences[i] with context_tokens[j] each.
type decodeGrid struct {
	Sequences     []float64   `json:"sequences"`
	ContextTokens []float64   `json:"context_tokens"`
	Seconds       [][]float64 `json:"seconds"`
}

// Parse reads a model: a file of ours, or one by the profiler of NVIDIA Dynamo as
// ParseProfile takes it.
func Parse(data []byte) (Model, error) {
	f, err := ParseFile(data)
	if err != nil {
		return nil, err
	}
	return f.Model, nil
}

// Open reads a model from r, as Parse does.
func Open(r io.Reader) (Model, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxFileBytes+1))
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

// ParseFile reads a model as Parse does, with its name and source. A profile has
// neither.
func ParseFile(data []byte) (*File, error) {
	if len(data) > MaxFileBytes {
		return nil, invalid("file", "has more than %d bytes", MaxFileBytes)
	}
	if !isZip(data) {
		members := map[string]jsontext.Value{}
		if err := json.Unmarshal(data, &members); err != nil {
			return nil, jsonError(err)
		}
		if _, ok := members["format"]; ok {
			return parseOwn(data)
		}
	}
	t, err := ParseProfile(data)
	if err != nil {
		return nil, err
	}
	return &File{Model: t}, nil
}

func parseOwn(data []byte) (*File, error) {
	var j fileJSON
	if err := json.Unmarshal(data, &j, json.RejectUnknownMembers(true)); err != nil {
		return nil, jsonError(err)
	}
	if j.Format != Format {
		return nil, invalid("format", "is %.40q; this program reads %q", j.Format, Format)
	}
	if len(j.Name) > maxNameBytes || len(j.Source) > maxNameBytes {
		return nil, invalid("name, source", "may have %d bytes each", maxNameBytes)
	}
	f := &File{Name: j.Name, Source: j.Source}
	var kinds []string
	var err error
	if j.ClosedForm != nil {
		kinds = append(kinds, "closed_form")
		f.Model, err = parseClosedForm(j.ClosedForm)
	}
	if j.Polynomial != nil {
		kinds = append(kinds, "polynomial")
		f.Model, err = j.Polynomial, within("polynomial", j.Polynomial.Validate())
	}
	if j.Table != nil {
		kinds = append(kinds, "table")
		f.Model, err = parseTable(j.Table)
	}
	if len(kinds) != 1 {
		return nil, invalid("", "a model file holds exactly one of closed_form, polynomial and table; this one holds %d: %s",
			len(kinds), strings.Join(kinds, ", "))
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func parseClosedForm(members map[string]float64) (*ClosedForm, error) {
	var v vector
	for i, name := range coefficientNames {
		c, ok := members[name]
		if !ok {
			return nil, invalid("closed_form."+name, "is missing; give all six coefficients, 0 for what costs nothing")
		}
		v[i] = c
	}
	for name := range members {
		if !slices.Contains(coefficientNames[:], name) {
			return nil, invalid("closed_form."+name, "is no coefficient; there are %s", strings.Join(coefficientNames[:], ", "))
		}
	}
	m := closedForm(v)
	return &m, within("closed_form", m.Validate())
}

func parseTable(j *tableJSON) (*Table, error) {
	d := TableData{Prefill: j.Prefill, Decode: j.Decode}
	if g := j.Grid; g != nil {
		if len(j.Decode) > 0 {
			return nil, invalid("table", "has both decode and decode_grid; give one")
		}
		if err := g.points(&d); err != nil {
			return nil, within("table", err)
		}
	}
	t, err := NewTable(d)
	return t, within("table", err)
}

// points turns a grid into points.
func (g *decodeGrid) points(d *TableData) error {
	if len(g.Seconds) != len(g.Sequences) {
		return invalid("decode_grid.seconds", "has %d rows for %d sequences", len(g.Seconds), len(g.Sequences))
	}
	for i, s := range g.Sequences {
		if len(g.Seconds[i]) != len(g.ContextTokens) {
			return invalid("decode_grid.seconds", "row %d has %d cells for %d context_tokens", i, len(g.Seconds[i]), len(g.ContextTokens))
		}
		for j, c := range g.ContextTokens {
			d.Decode = append(d.Decode, DecodePoint{Sequences: s, KVTokens: s * c, Seconds: g.Seconds[i][j]})
		}
	}
	return nil
}

// within says in which part of a file err's field is.
func within(part string, err error) error {
	if err == nil {
		return nil
	}
	return invalid(part, "%v", err)
}

// Encode writes the file's JSON. The model is one of this package's.
func (f *File) Encode() ([]byte, error) {
	j := fileJSON{Format: Format, Name: f.Name, Source: f.Source}
	switch m := f.Model.(type) {
	case *ClosedForm:
		if err := m.Validate(); err != nil {
			return nil, err
		}
		j.ClosedForm = map[string]float64{}
		for i, c := range m.vector() {
			j.ClosedForm[coefficientNames[i]] = c
		}
	case *Polynomial:
		if err := m.Validate(); err != nil {
			return nil, err
		}
		j.Polynomial = m
	case *Table:
		d := m.Data()
		j.Table = &tableJSON{Prefill: d.Prefill, Decode: d.Decode}
	default:
		return nil, invalid("model", "a %T has no form on disk; fit a closed form to its steps", f.Model)
	}
	return json.Marshal(&j, json.Deterministic(true), jsontext.WithIndent("  "))
}

// jsonError names the member at which a file is wrong.
func jsonError(err error) error {
	if s, ok := errors.AsType[*json.SemanticError](err); ok {
		field := strings.ReplaceAll(strings.TrimPrefix(string(s.JSONPointer), "/"), "/", ".")
		if s.Err != nil {
			return invalid(field, "%v", s.Err)
		}
		return invalid(field, "%v", err)
	}
	return invalid("", "not a model file: %v", err)
}

// readJSONArrays reads the numbers of a JSON object: single ones, lists and lists of
// lists of equal length. Members of other types are left out.
func readJSONArrays(data []byte) (map[string]array, error) {
	members := map[string]jsontext.Value{}
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, jsonError(err)
	}
	arrays := map[string]array{}
	for name, v := range members {
		var number float64
		var list []float64
		var grid [][]float64
		switch {
		case bytes.HasPrefix(v, []byte("[[")), v.Kind() == '[' && json.Unmarshal(v, &list) != nil:
			if json.Unmarshal(v, &grid) != nil {
				continue
			}
			a := array{shape: []int{len(grid), 0}}
			for i, r := range grid {
				if a.shape[1] = len(grid[0]); len(r) != len(grid[0]) {
					return nil, invalid(name, "row %d has %d values, row 0 %d", i, len(r), len(grid[0]))
				}
				a.data = append(a.data, r...)
			}
			arrays[name] = a
		case v.Kind() == '[':
			arrays[name] = array{shape: []int{len(list)}, data: list}
		case v.Kind() == '0' && json.Unmarshal(v, &number) == nil:
			arrays[name] = array{data: []float64{number}}
		}
		if len(arrays[name].data) > MaxPoints {
			return nil, invalid(name, "has more than %d values", MaxPoints)
		}
	}
	return arrays, nil
}
