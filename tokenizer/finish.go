package tokenizer

import "github.com/dynamo-go/dynamo"

// finish puts a tokenizer together once the whole file is read.
func (r *reader) finish() error {
	t, m := r.t, &r.t.model
	if r.unknown != nil {
		id, ok := m.vocab.findString(*r.unknown)
		if !ok {
			return corrupt("the unknown token %q is not in the vocabulary", *r.unknown)
		}
		m.unknown = int32(id)
	}
	var err error
	if t.normalizers, err = r.readNormalizers(r.normalizer); err != nil {
		return err
	}
	r.onlyNFC = len(t.normalizers) == 1 && r.forms == 1
	if r.splitters, err = r.readSplitters(r.splitter); err != nil {
		return err
	}
	if err := r.readPost(r.post); err != nil {
		return err
	}
	if err := r.readDecoder(r.decoder); err != nil {
		return err
	}
	return r.assemble()
}

// assemble is the part of finish that both file formats share.
func (r *reader) assemble() error {
	t, m := r.t, &r.t.model
	if err := r.addTokens(); err != nil {
		return err
	}
	raw := r.plan()
	if err := m.finish(raw); err != nil {
		return err
	}
	if raw && !m.bytes {
		r.respell()
	}
	r.setLineCut()
	t.size = len(m.vocab.spans)
	for id := range t.added {
		t.size = max(t.size, int(id)+1)
	}
	t.decoding.compile(t)
	return nil
}

// addTokens gives every added token its id as the library does when it loads the
// file: the vocabulary's if it is there, else the next free one.
func (r *reader) addTokens() error {
	t := r.t
	if len(r.added) > maxAddedTokens {
		return unsupported("%d added tokens, limit %d", len(r.added), maxAddedTokens)
	}
	t.added, t.addedID, t.special = map[uint32]*addedToken{}, map[string]uint32{}, map[string]bool{}
	total := 0
	var raw, normal []addedToken
	free := uint32(t.model.vocab.count)
	for i := range r.added {
		a := &r.added[i]
		if total += len(a.Content); total > maxAddedBytes || len(a.Content) > maxAddedLength {
			return unsupported("added token %d is too long", a.ID)
		}
		if a.Content == "" {
			continue
		}
		t.special[a.Content] = t.special[a.Content] || a.Special
		if id, ok := t.ID(a.Content); ok {
			a.ID = uint32(id)
		} else {
			a.ID = free
		}
		if a.ID >= free {
			free = a.ID + 1
		}
		if a.ID >= maxIDs {
			return corrupt("added token %q: id %d above %d", a.Content, a.ID, maxIDs-1)
		}
		t.added[a.ID], t.addedID[a.Content] = a, a.ID
	}
	for _, a := range r.added {
		switch {
		case a.Content == "" || t.added[a.ID].Content != a.Content:
		case t.added[a.ID].Normalized:
			normal = append(normal, *t.added[a.ID])
		default:
			raw = append(raw, *t.added[a.ID])
		}
	}
	if r.slow && len(normal) > maxEngineAdded {
		return unsupported("%d normalized added tokens beside a normalizer with a regular expression", len(normal))
	}
	t.raw = newMatcher(raw, func(s string) string { return s })
	t.normal = newMatcher(normal, func(s string) string { return normalizeAll(t.normalizers, s) })
	for _, a := range t.added {
		a.spelling = a.Content
		if a.Normalized {
			a.spelling = normalizeAll(t.normalizers, a.Content)
		}
	}
	return nil
}

// plan decides how texts are split. It reports whether words are raw bytes: then
// the ByteLevel component comes last and only needs undoing in the vocabulary.
func (r *reader) plan() bool {
	t := r.t
	t.splitters = r.splitters
	last := len(r.splitters) - 1
	if last < 0 {
		return false
	}
	level, ok := r.splitters[last].(byteLevel)
	if !ok {
		return false
	}
	for _, s := range r.splitters[:last] {
		if b, ok := s.(byteLevel); ok && b.spell {
			return false
		}
	}
	level.spell = false
	t.splitters = append(append([]splitter{}, r.splitters[:last]...), level)
	t.scan = fused(t.splitters)
	return true
}

// respell takes back what plan assumed: the model works on spelled words after all.
func (r *reader) respell() {
	last := len(r.splitters) - 1
	level := r.splitters[last].(byteLevel)
	level.spell = true
	r.t.splitters[last], r.t.scan = level, nil
}

// A scanFunc splits a text and appends the ids of its words in one go.
type scanFunc func(t *Tokenizer, dst []dynamo.TokenID, sc *scratch, s string) []dynamo.TokenID

// fused returns a scanFunc for the chains of splitters that published byte-level
// models use, nil for others.
func fused(chain []splitter) scanFunc {
	level := chain[len(chain)-1].(byteLevel)
	if level.prefixSpace {
		return nil
	}
	scanners := make([]scanner, 0, len(chain))
	for _, s := range chain[:len(chain)-1] {
		sp, ok := s.(splitAt)
		if !ok {
			return nil
		}
		if c, ok := sp.pattern.(chars); ok && c == (chars{flag: flagNumeric}) && sp.behaviour == isolated {
			scanners = append(scanners, numericScanner{})
			continue
		}
		c, ok := sp.pattern.(scanned)
		if !ok || !(sp.behaviour == isolated && !sp.invert || sp.behaviour == removed && sp.invert && total(c.scanner)) {
			return nil
		}
		scanners = append(scanners, c.scanner)
	}
	if level.words {
		scanners = append(scanners, gpt2Scanner{})
	}
	switch {
	case len(scanners) == 1:
		return scanOne(scanners[0])
	case len(scanners) == 2 && scanners[0] == numericScanner{} && scanners[1] == gpt2Scanner{}:
		return scanSmol
	case len(scanners) == 3 && scanners[0] == digitsScanner{} && scanners[1] == cjkScanner{} && scanners[2] == deepseekScanner{}:
		return scanDeepSeek
	}
	return nil
}

// total reports whether every character is part of a match of s.
func total(s scanner) bool {
	switch s.(type) {
	case gpt2Scanner, cl100kScanner, o200kScanner:
		return true
	}
	return false
}

// scanOne splits with a single scanner.
func scanOne(c scanner) scanFunc {
	switch c := c.(type) {
	case gpt2Scanner:
		return scanGPT2
	case cl100kScanner:
		return c.scan
	case o200kScanner:
		return c.scan
	}
	return nil
}

// numericScanner matches single numeric characters.
type numericScanner struct{}

func (numericScanner) next(s string, i int) (start, end int) {
	for i < len(s) {
		e, n := classes.at(s, i)
		if e&flagNumeric != 0 {
			return i, i + n
		}
		i += n
	}
	return i, i
}

func scanGPT2(t *Tokenizer, dst []dynamo.TokenID, sc *scratch, s string) []dynamo.TokenID {
	for i := 0; i < len(s); {
		_, end := gpt2Scanner{}.next(s, i)
		dst = t.model.appendWord(dst, sc, s, i, end)
		i = end
	}
	return dst
}

func (c cl100kScanner) scan(t *Tokenizer, dst []dynamo.TokenID, sc *scratch, s string) []dynamo.TokenID {
	for i := 0; i < len(s); {
		_, end := c.next(s, i)
		dst = t.model.appendWord(dst, sc, s, i, end)
		i = end
	}
	return dst
}

func (o o200kScanner) scan(t *Tokenizer, dst []dynamo.TokenID, sc *scratch, s string) []dynamo.TokenID {
	for i := 0; i < len(s); {
		_, end := o.next(s, i)
		dst = t.model.appendWord(dst, sc, s, i, end)
		i = end
	}
	return dst
}

// scanSmol isolates numeric characters and splits the rest as GPT-2 does.
func scanSmol(t *Tokenizer, dst []dynamo.TokenID, sc *scratch, s string) []dynamo.TokenID {
	for i := 0; i < len(s); {
		start, end := numericScanner{}.next(s, i)
		dst = scanGPT2(t, dst, sc, s[i:start])
		if start < end {
			dst = t.model.appendWord(dst, sc, s, start, end)
		}
		i = end
	}
	return dst
}

// scanDeepSeek isolates numbers, then runs of Chinese and Japanese characters,
// then words.
func scanDeepSeek(t *Tokenizer, dst []dynamo.TokenID, sc *scratch, s string) []dynamo.TokenID {
	for i := 0; i < len(s); {
		number, numberEnd := digitsScanner{}.next(s, i)
		for rest := s[i:number]; rest != ""; {
			start, end := cjkScanner{}.next(rest, 0)
			dst = scanWords(t, dst, sc, rest[:start])
			dst = scanWords(t, dst, sc, rest[start:end])
			rest = rest[end:]
		}
		dst = scanWords(t, dst, sc, s[number:numberEnd])
		i = numberEnd
	}
	return dst
}

// scanWords is the last stage of scanDeepSeek.
func scanWords(t *Tokenizer, dst []dynamo.TokenID, sc *scratch, s string) []dynamo.TokenID {
	for i := 0; i < len(s); {
		start, end := deepseekScanner{}.next(s, i)
		if i < start {
			dst = t.model.appendWord(dst, sc, s, i, start)
		}
		if start < end {
			dst = t.model.appendWord(dst, sc, s, start, end)
		}
		i = end
	}
	return dst
}
