package tokenizer

// readPost reads the post-processor: the ids it puts before and behind a text.
func (r *reader) readPost(raw rawJSON) error {
	parts, err := readParts(r, "post_processor", "processors", raw, r.readProcessor)
	if err != nil {
		return err
	}
	if len(parts) > 1 {
		return unsupported("%d post-processors that add tokens, one after the other", len(parts))
	}
	t := r.t
	for _, p := range parts {
		t.before, t.behind = p.before, p.behind
	}
	if len(t.before)+len(t.behind) > maxTemplateIDs {
		return unsupported("a post-processor that adds more than %d tokens", maxTemplateIDs)
	}
	return nil
}

// around is what one post-processor puts around a text.
type around struct{ before, behind []uint32 }

func (r *reader) readProcessor(kind string, raw rawJSON) ([]around, error) {
	switch kind {
	case "ByteLevel":
		return nil, nil // moves offsets only
	case "TemplateProcessing":
		return readTemplate(raw)
	case "RobertaProcessing", "BertProcessing":
		var c struct {
			Sep rawJSON `json:"sep"`
			Cls rawJSON `json:"cls"`
		}
		if err := decode(raw, &c); err != nil {
			return nil, err
		}
		sep, err := readPair(c.Sep)
		if err != nil {
			return nil, err
		}
		cls, err := readPair(c.Cls)
		return []around{{[]uint32{cls}, []uint32{sep}}}, err
	}
	return nil, unsupported("post-processor %q", kind)
}

// readPair reads the id of ["token", id].
func readPair(raw rawJSON) (uint32, error) {
	var pair []rawJSON
	if err := decode(raw, &pair); err != nil {
		return 0, err
	}
	if len(pair) != 2 {
		return 0, corrupt("%s is not a token and its id", raw)
	}
	var id uint32
	err := decode(pair[1], &id)
	return id, err
}

// readTemplate reads a TemplateProcessing for a single text.
func readTemplate(raw rawJSON) ([]around, error) {
	var c struct {
		Single []struct {
			Special *struct {
				ID string `json:"id"`
			} `json:"SpecialToken"`
			Sequence *struct {
				ID string `json:"id"`
			} `json:"Sequence"`
		} `json:"single"`
		Special map[string]struct {
			IDs []uint32 `json:"ids"`
		} `json:"special_tokens"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	var a around
	texts := 0
	for _, p := range c.Single {
		switch {
		case p.Sequence != nil:
			texts++
		case p.Special == nil:
			return nil, corrupt("TemplateProcessing: a piece that is neither token nor text")
		default:
			s, ok := c.Special[p.Special.ID]
			if !ok {
				return nil, corrupt("TemplateProcessing: %q is not among its special tokens", p.Special.ID)
			}
			if texts == 0 {
				a.before = append(a.before, s.IDs...)
			} else {
				a.behind = append(a.behind, s.IDs...)
			}
		}
	}
	if texts != 1 {
		return nil, unsupported("TemplateProcessing with %d texts in its single template", texts)
	}
	return []around{a}, nil
}
