package discovery_test

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/discovery/discoverytest"
)

// TestStoredForm keeps the form that other versions of the program read.
func TestStoredForm(t *testing.T) {
	i := discoverytest.Instance(0xabc, 1<<63)
	got, err := discovery.EncodeInstance(i)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/instance.json")
	if err != nil {
		t.Fatal(err)
	}
	if want = bytes.TrimSpace(want); !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	back, err := discovery.DecodeInstance(want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, i) {
		t.Errorf("got %+v, want %+v", back, i)
	}
	// Earlier versions do not store all of it.
	old := bytes.Replace(want, []byte(`"step_tokens":512,`), nil, 1)
	i.Card.StepTokens = 0
	if back, err = discovery.DecodeInstance(old); err != nil || !reflect.DeepEqual(back, i) {
		t.Errorf("of an earlier version: got %+v, %v, want %+v", back, err, i)
	}
}

// TestStoredFormIsWhole fills every field, so that one that is not stored shows.
func TestStoredFormIsWhole(t *testing.T) {
	i := discoverytest.Instance(1, 1)
	fill(reflect.ValueOf(i.Card).Elem())
	i.Draining, i.Card.Format = true, discovery.CardFormat
	b, err := discovery.EncodeInstance(i)
	if err != nil {
		t.Fatal(err)
	}
	back, err := discovery.DecodeInstance(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, i) {
		t.Errorf("got %+v card %+v, want %+v card %+v", back, back.Card, i, i.Card)
	}
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for n := range v.NumField() {
			fill(v.Field(n))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
	case reflect.String:
		v.SetString("s")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint32:
		v.SetUint(7)
	default:
		panic("BUG: a card has a " + v.Kind().String())
	}
}

func TestDecodeInstance(t *testing.T) {
	good, err := discovery.EncodeInstance(discoverytest.Instance(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string { return strings.Replace(string(good), old, new, 1) }
	for _, c := range []struct {
		name, text string
		kind       dynamo.Kind
		say        string
	}{
		{"unknown field", change(`{`, `{"colour":"red",`), 0, ""},
		{"unknown field of the card", change(`"card":{`, `"card":{"colour":{"x":1},`), 0, ""},
		{"newer", change(`"format":1`, `"format":2`), dynamo.KindInvalid, "upgrade"},
		{"newer and otherwise shaped", `{"format":3,"id":[1,2],"card":7}`, dynamo.KindInvalid, "upgrade"},
		{"newer card", change(`"card":{"format":1`, `"card":{"format":2`), dynamo.KindInvalid, "upgrade"},
		{"no format", change(`"format":1,`, ``), dynamo.KindCorrupt, "format"},
		{"empty", "", dynamo.KindCorrupt, "no instance"},
		{"list", "[]", dynamo.KindCorrupt, "no instance"},
		{"null", "null", dynamo.KindCorrupt, "no instance"},
		{"cut off", string(good[:len(good)/2]), dynamo.KindCorrupt, "no instance"},
		{"binary", "\x00\xff\x01", dynamo.KindCorrupt, "no instance"},
		{"no id", change(`"id":"0000000000000001"`, `"id":""`), dynamo.KindCorrupt, "worker id"},
		{"epoch 0", change(`"epoch":"1"`, `"epoch":"0"`), dynamo.KindCorrupt, "epoch"},
		{"path", change(`"namespace":"test"`, `"namespace":"../etc"`), dynamo.KindCorrupt, "namespace"},
		{"address", change(`tcp://`, `http://`), dynamo.KindCorrupt, "address"},
		{"no model", change(`"model":"m"`, `"model":""`), dynamo.KindCorrupt, "model"},
		{"twice", change(`{`, `{"format":1,`), dynamo.KindCorrupt, "no instance"},
		{"too large", string(good) + strings.Repeat(" ", discovery.MaxInstanceBytes), dynamo.KindCorrupt, "bytes"},
	} {
		_, err := discovery.DecodeInstance([]byte(c.text))
		switch {
		case c.say == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.say == "":
		case err == nil:
			t.Errorf("%s: accepted", c.name)
		case dynamo.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.say):
			t.Errorf("%s: %v of kind %v, want %v and %q", c.name, err, dynamo.KindOf(err), c.kind, c.say)
		}
	}
}

// FuzzDecodeInstance: what is accepted can be stored again and stays the same.
func FuzzDecodeInstance(f *testing.F) {
	good, err := discovery.EncodeInstance(discoverytest.Instance(1, 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"namespace":"a","component":"b","endpoint":"c","id":"1","epoch":"1","addresses":null,"started":"2026-01-01T00:00:00+01:00"}`))
	f.Add(append(append([]byte(`{"format":1,"owner":{"kernel":"k","ttl_ms":-1},"instance":`), good...), '}'))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = discovery.DecodeFile(b) // must not panic
		i, err := discovery.DecodeInstance(b)
		if err != nil {
			return
		}
		again, err := discovery.EncodeInstance(i)
		if err != nil {
			if len(b) < discovery.MaxInstanceBytes/8 {
				t.Fatalf("accepted and not storable: %v", err)
			}
			return
		}
		j, err := discovery.DecodeInstance(again)
		if err != nil {
			t.Fatalf("stored and not readable: %v", err)
		}
		third, err := discovery.EncodeInstance(j)
		if err != nil || !bytes.Equal(third, again) {
			t.Fatalf("%s\nbecame %s, %v", again, third, err)
		}
	})
}
