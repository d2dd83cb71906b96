package event

// Feed is a subscriber's place: it turns batches into deliveries, puts pieces
// together, and sees what is missing. A carrier hands it each batch that arrives,
// asks the publisher for what follows Cursor when something is missing, and hands
// it the answer. Not safe for concurrent use.
type Feed struct {
	src     Source // as asked for
	at      Cursor
	partial []byte // what is had of the part or event that comes next
	gapped  bool   // the hole in front of the cursor has been told
}

// NewFeed returns the feed of a subscriber that goes on from a position.
func NewFeed(src Source, from Position) *Feed {
	return &Feed{src: src, at: Cursor{Position: from}}
}

// Cursor returns the place to ask for what comes next.
func (f *Feed) Cursor() Cursor { return f.at }

// Progress says where a Feed stands after a batch.
type Progress uint8

// What a batch can lead to.
const (
	// Current: everything up to the batch's tip is dealt with.
	Current Progress = iota
	// Behind: the publisher has more, which the batch had no room for.
	Behind
	// Missing: what comes next was not in the batch and something later was.
	Missing
	// Stopped: yield returned false.
	Stopped
)

// Take yields what batch b leads on to. What is known already is passed over, and
// so is a batch of another life than the one asked for. A malformed batch is
// KindCorrupt; the place stays where the last good record led.
func (f *Feed) Take(b []byte, yield func(Delivery) bool) (Progress, error) {
	epoch, tip, b, err := parseHeader(b)
	if err != nil {
		return Missing, err
	}
	if f.src.Epoch != 0 && f.src.Epoch != epoch {
		return Behind, nil
	}
	told := len(b) > 0
	for len(b) > 0 {
		var r record
		if r, b, err = parseRecord(b); err != nil {
			return Missing, err
		}
		switch p := f.take(epoch, r, yield); p {
		case Missing:
			return f.missing(epoch, tip, yield), nil
		case Stopped:
			return p, nil
		}
	}
	switch {
	case f.at.Epoch != epoch, !told && f.at.Seq < tip:
		return f.missing(epoch, tip, yield), nil
	case f.at.InSnapshot, f.at.Seq < tip:
		return Behind, nil
	}
	return Current, nil
}

// missing tells of a hole once.
func (f *Feed) missing(epoch, tip uint64, yield func(Delivery) bool) Progress {
	if f.at.Epoch == epoch && !f.gapped && !f.at.InSnapshot {
		f.gapped = true
		if !yield(f.delivery(epoch, record{kind: Gap, seq: tip}, nil)) {
			return Stopped
		}
	}
	return Missing
}

// take deals with one record.
func (f *Feed) take(epoch uint64, r record, yield func(Delivery) bool) Progress {
	switch {
	case r.kind == Reset:
		f.at = Cursor{Position: Position{epoch, r.seq}, InSnapshot: !r.last}
		f.partial, f.gapped = f.partial[:0], false
	case epoch != f.at.Epoch:
		return Missing
	case r.kind == Gap:
		if f.gapped {
			return Current
		}
		f.gapped = true
	case r.kind == Event && r.seq <= f.at.Seq && !f.at.InSnapshot:
		return Current // known
	default:
		return f.piece(epoch, r, yield)
	}
	if !yield(f.delivery(epoch, r, nil)) {
		return Stopped
	}
	return Current
}

// piece deals with a piece of an event or of a snapshot's part.
func (f *Feed) piece(epoch uint64, r record, yield func(Delivery) bool) Progress {
	next := f.at.Seq
	if r.kind == Event {
		next++
	}
	if f.at.InSnapshot != (r.kind == Snapshot) || r.seq != next || r.part != f.at.Part || r.offset > f.at.Offset {
		return Missing
	}
	known := int(f.at.Offset - r.offset)
	if r.more && known >= len(r.piece) {
		return Current
	}
	payload := r.piece[min(known, len(r.piece)):]
	if r.more || f.at.Offset > 0 {
		f.partial = append(f.partial, payload...)
		f.at.Offset += uint32(len(payload))
		payload = f.partial
	}
	if r.more {
		return Current
	}
	f.at.Offset, f.partial = 0, f.partial[:0]
	if cap(f.partial) > BatchBytes {
		f.partial = nil // payload keeps it until the next delivery
	}
	switch {
	case r.kind == Event:
		f.at.Seq, f.gapped = r.seq, false
	case r.last:
		f.at = Cursor{Position: f.at.Position}
	default:
		f.at.Part++
	}
	if !yield(f.delivery(epoch, r, payload)) {
		return Stopped
	}
	return Current
}

func (f *Feed) delivery(epoch uint64, r record, payload []byte) Delivery {
	return Delivery{
		Source: Source{f.src.Topic, f.src.Worker, epoch},
		Kind:   r.kind, Seq: r.seq, Payload: payload, Last: r.last,
	}
}
