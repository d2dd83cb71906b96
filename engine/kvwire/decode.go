package kvwire

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// What a payload holds, in MessagePack: an array [timestamp, events, rank], the
// rank maybe missing. An event is a map whose "type" names it (vLLM from 0.24,
// SGLang from 0.5.21), or an array that begins with the name and has the fields in
// the order of storedFields or removedFields; those at its end may be missing, and
// more may follow. Unknown keys and kinds are passed over.
type field uint8

const (
	fieldNone field = iota
	fieldType
	fieldHashes
	fieldParent
	fieldTokens
	fieldBlockSize
	fieldLoRAID
	fieldMedium
	fieldLoRA
	fieldExtra
	fieldGroup
	fieldSpecKind
	fieldLocality
	fieldSalt
)

var (
	storedFields = [...]field{
		fieldHashes, fieldParent, fieldTokens, fieldBlockSize, fieldLoRAID, fieldMedium,
		fieldLoRA, fieldExtra, fieldGroup, fieldSpecKind,
	}
	removedFields = [...]field{fieldHashes, fieldMedium, fieldGroup}
)

// fieldOf returns the field of a map's key.
func fieldOf(key []byte) field {
	switch string(key) {
	case "type":
		return fieldType
	case "block_hashes":
		return fieldHashes
	case "parent_block_hash":
		return fieldParent
	case "token_ids":
		return fieldTokens
	case "block_size":
		return fieldBlockSize
	case "lora_id":
		return fieldLoRAID
	case "medium":
		return fieldMedium
	case "lora_name":
		return fieldLoRA
	case "extra_keys":
		return fieldExtra
	case "group_idx":
		return fieldGroup
	case "kv_cache_spec_kind":
		return fieldSpecKind
	case "locality":
		return fieldLocality
	case "cache_salt":
		return fieldSalt
	}
	return fieldNone
}

// kindOf returns the kind that a tag names.
func kindOf(tag []byte) (Kind, bool) {
	switch string(tag) {
	case "BlockStored":
		return Stored, true
	case "BlockRemoved":
		return Removed, true
	case "AllBlocksCleared":
		return Cleared, true
	}
	return 0, false
}

// Decoder reads payloads. The zero Decoder is ready to use; it belongs to one
// goroutine.
type Decoder struct {
	r     reader
	batch Batch
	// What the events' slices lie in. A slice of a buffer that has moved since
	// still holds what it held.
	hashes []EngineHash
	ids    []dynamo.TokenID
	extra  []BlockKeys
	texts  []string
	names  map[string]string
}

// Decode returns what payload says, valid until the next call. It keeps nothing of
// payload. A malformed one is KindCorrupt.
func (d *Decoder) Decode(payload []byte) (*Batch, error) {
	if len(payload) > MaxPayloadBytes {
		return nil, corrupt("a batch of KV events is longer than 8 MiB; is the endpoint an engine's event socket?")
	}
	d.r = reader{b: payload}
	d.hashes, d.ids, d.extra, d.texts = d.hashes[:0], d.ids[:0], d.extra[:0], d.texts[:0]
	d.batch = Batch{Events: d.batch.Events[:0]}
	d.decode()
	bad := d.r.bad || d.r.i != len(payload)
	d.r.b = nil
	if bad {
		return nil, corrupt("a batch of KV events is cut short or malformed; is the endpoint an engine's event socket, and its version known?")
	}
	return &d.batch, nil
}

func (d *Decoder) decode() {
	r := &d.r
	n := r.array()
	if n < 2 {
		r.fail()
		return
	}
	switch f, v := r.head(); f {
	case formFloat:
		d.batch.Timestamp = math.Float64frombits(v)
	case formUint:
		d.batch.Timestamp = float64(v)
	default:
		r.fail()
		return
	}
	f, events := r.head()
	if f != formArray {
		r.fail()
		return
	}
	for ; events > 0 && !r.bad; events-- {
		d.event()
	}
	if n > 2 && !r.bad {
		d.batch.Rank = r.number(maxRank)
		r.skip(uint64(n - 3))
	}
}

// event reads one event and appends it to the batch, if it is of a known kind.
func (d *Decoder) event() {
	r := &d.r
	if len(d.batch.Events) == MaxBatchEvents {
		r.fail()
		return
	}
	hashes, ids, extra, texts := len(d.hashes), len(d.ids), len(d.extra), len(d.texts)
	d.batch.Events = append(d.batch.Events, Event{})
	e := &d.batch.Events[len(d.batch.Events)-1]
	known := false
	switch f, n := r.head(); f {
	case formArray:
		known = d.eventArray(e, n)
	case formMap:
		known = d.eventMap(e, n)
	default:
		r.fail()
	}
	if !known {
		d.hashes, d.ids, d.extra, d.texts = d.hashes[:hashes], d.ids[:ids], d.extra[:extra], d.texts[:texts]
		d.batch.Events = d.batch.Events[:len(d.batch.Events)-1]
		d.batch.Skipped++
		return
	}
	if e.Kind == Stored && e.BlockSize < 1 {
		r.fail()
	}
}

func (d *Decoder) eventMap(e *Event, pairs uint64) (known bool) {
	r := &d.r
	for ; pairs > 0 && !r.bad; pairs-- {
		f, n := r.head()
		if f != formText {
			r.rest(f, n)
			r.skip(1)
			continue
		}
		name := fieldOf(r.take(n))
		if name == fieldType {
			e.Kind, known = d.tag()
			continue
		}
		d.field(e, name)
	}
	return known
}

func (d *Decoder) eventArray(e *Event, n uint64) (known bool) {
	if n == 0 {
		d.r.fail()
		return false
	}
	e.Kind, known = d.tag()
	n--
	var fields []field
	switch {
	case known && e.Kind == Stored:
		fields = storedFields[:]
	case known && e.Kind == Removed:
		fields = removedFields[:]
	}
	for _, f := range fields[:min(n, uint64(len(fields)))] {
		if d.r.bad {
			return known
		}
		d.field(e, f)
		n--
	}
	d.r.skip(n)
	return known
}

func (d *Decoder) tag() (Kind, bool) {
	f, n := d.r.head()
	if f != formText {
		d.r.fail()
		return 0, false
	}
	return kindOf(d.r.take(n))
}

// field reads the value of one field. One that comes twice counts as it came last.
func (d *Decoder) field(e *Event, f field) {
	r := &d.r
	switch f {
	case fieldHashes:
		e.Hashes = d.readHashes()
	case fieldParent:
		e.Parent, e.HasParent = d.hash()
	case fieldTokens:
		d.readTokens(e)
	case fieldBlockSize:
		e.BlockSize = r.number(MaxBlockTokens)
	case fieldLoRAID:
		form, n := r.head()
		e.LoRAID = form == formUint || form == formInt
		r.rest(form, n)
	case fieldMedium:
		e.Medium = d.text()
	case fieldLoRA:
		d.loraOrSalt(e)
	case fieldExtra:
		d.readExtra(e)
	case fieldGroup:
		e.Group = r.number(math.MaxInt32)
	case fieldSpecKind:
		e.SpecKind = d.text()
	case fieldLocality:
		e.Locality = d.text()
	case fieldSalt:
		e.CacheSalt = d.text()
	default:
		r.skip(1)
	}
}

// hash reads an engine's hash, or nil.
func (d *Decoder) hash() (EngineHash, bool) {
	r := &d.r
	switch f, n := r.head(); f {
	case formUint, formInt:
		return EngineHash(n), true
	case formBytes:
		if n >= 8 {
			p := r.take(n)
			return EngineHash(binary.BigEndian.Uint64(p[n-8:])), true
		}
		r.fail()
	case formNil:
	default:
		r.fail()
	}
	return 0, false
}

func (d *Decoder) readHashes() []EngineHash {
	n, at := d.r.array(), len(d.hashes)
	d.hashes = slices.Grow(d.hashes, n)
	for r := &d.r; n > 0; n-- {
		if r.i+9 <= len(r.b) && r.b[r.i] == 0xcf { // nearly all are of this form
			d.hashes = append(d.hashes, EngineHash(binary.BigEndian.Uint64(r.b[r.i+1:])))
			r.i += 9
			continue
		}
		h, ok := d.hash()
		if !ok {
			r.fail()
			return nil
		}
		d.hashes = append(d.hashes, h)
	}
	return d.hashes[at:len(d.hashes):len(d.hashes)]
}

func (d *Decoder) readTokens(e *Event) {
	n, at := d.r.array(), len(d.ids)
	ids, plain := d.r.tokens(d.ids, n)
	if !plain {
		ids = ids[:at]
	}
	d.ids, e.Foreign = ids, !plain
	e.Tokens = ids[at:len(ids):len(ids)]
}

// loraOrSalt reads what is in the place of the adapter's name: SGLang's arrays have
// a map there that holds the salt.
func (d *Decoder) loraOrSalt(e *Event) {
	r := &d.r
	f, n := r.head()
	switch f {
	case formText:
		e.LoRA = d.name(r.take(n))
	case formNil:
	case formMap:
		for ; n > 0 && !r.bad; n-- {
			f, size := r.head()
			if f == formText && string(r.take(size)) == "cache_salt" {
				e.CacheSalt = d.text()
				continue
			}
			if f != formText {
				r.rest(f, size)
			}
			r.skip(1)
		}
	default:
		r.fail()
	}
}

// readExtra reads, for each block, nil or an array of keys.
func (d *Decoder) readExtra(e *Event) {
	r, at := &d.r, len(d.extra)
	n := r.array()
	for block := 0; block < n && !r.bad; block++ {
		if r.i < len(r.b) && r.b[r.i] == 0xc0 { // nearly all have none
			r.i++
			continue
		}
		count := r.array()
		if count == 0 {
			continue
		}
		if len(d.extra) == maxExtraKeys || len(d.texts) > maxExtraKeys {
			r.fail()
			return
		}
		if count > maxKeysOfBlock {
			r.fail()
			return
		}
		keys, first := BlockKeys{Block: block}, len(d.texts)
		for ; count > 0 && !r.bad; count-- {
			f, size := r.head()
			switch f {
			case formText:
				d.texts = append(d.texts, d.name(r.take(size)))
			case formNil:
			default:
				keys.Others++
				r.rest(f, size)
			}
		}
		keys.Names = d.texts[first:len(d.texts):len(d.texts)]
		d.extra = append(d.extra, keys)
	}
	e.Extra = d.extra[at:len(d.extra):len(d.extra)]
}

// text reads a text; nil is an empty one.
func (d *Decoder) text() string {
	switch f, n := d.r.head(); f {
	case formText:
		return d.name(d.r.take(n))
	case formNil:
	default:
		d.r.fail()
	}
	return ""
}

// name returns b as a string, the same one for the same bytes while it is kept.
func (d *Decoder) name(b []byte) string {
	switch string(b) {
	case "GPU":
		return "GPU"
	case "full_attention":
		return "full_attention"
	case "":
		return ""
	}
	if len(b) > MaxNameBytes {
		d.r.fail()
		return ""
	}
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if d.names == nil || len(d.names) >= maxNames {
		d.names = make(map[string]string)
	}
	s := string(b)
	d.names[s] = s
	return s
}
