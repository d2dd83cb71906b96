package frontend

import (
	"fmt"
	"net/http"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/openai"
)

// serveTokenize is POST /tokenize.
func (s *Server) serveTokenize(w http.ResponseWriter, r *http.Request) {
	x, ok := s.begin(w, r, endpointTokenize)
	defer x.finish()
	if !ok {
		return
	}
	if err := x.tokenize(); err != nil {
		x.fail(err)
	}
}

func (x *exchange) tokenize() error {
	body, err := x.body()
	if err != nil {
		return err
	}
	r, err := openai.DecodeTokenize(body)
	if err != nil {
		return err
	}
	if err := x.serveBy(r.Model, ""); err != nil {
		return err
	}
	var ids []dynamo.TokenID
	if r.Prompt.Set {
		ids, err = x.encode("prompt", r.Prompt.Value, r.AddSpecial.Or(true))
	} else {
		ids, err = x.conversation(&r.Conversation, r.AddSpecial.Or(false))
	}
	if err != nil {
		return err
	}
	var texts []string
	if r.ReturnStrings {
		texts = make([]string, len(ids))
		for i, id := range ids {
			texts[i] = x.model.Tokenizer.Token(id)
		}
	}
	x.s.metrics.requests.WithLabelValues(x.label, x.endpoint, "unary", "success", "").Inc()
	x.reply(http.StatusOK, openai.AppendTokenized(nil, ids, x.model.Card.ContextLength, texts))
	return nil
}

// serveDetokenize is POST /detokenize.
func (s *Server) serveDetokenize(w http.ResponseWriter, r *http.Request) {
	x, ok := s.begin(w, r, endpointDetokenize)
	defer x.finish()
	if !ok {
		return
	}
	if err := x.detokenize(); err != nil {
		x.fail(err)
	}
}

func (x *exchange) detokenize() error {
	body, err := x.body()
	if err != nil {
		return err
	}
	r, err := openai.DecodeDetokenize(body)
	if err != nil {
		return err
	}
	if err := x.serveBy(r.Model, ""); err != nil {
		return err
	}
	for i, id := range r.Tokens {
		if int64(id) >= int64(x.model.Tokenizer.VocabSize()) {
			return invalidID("tokens", i, id, x.model)
		}
	}
	x.s.metrics.requests.WithLabelValues(x.label, x.endpoint, "unary", "success", "").Inc()
	x.reply(http.StatusOK, openai.AppendDetokenized(nil, x.model.Tokenizer.Decode(r.Tokens, false)))
	return nil
}

func invalidID(field string, i int, id dynamo.TokenID, m *served) error {
	return &dynamo.Error{
		Kind: dynamo.KindInvalid, Param: field,
		Message: fmt.Sprintf("%s[%d] is token id %d, which model %s does not have; its ids end at %d", field, i, id, m.Card.Model, m.Tokenizer.VocabSize()-1),
	}
}
