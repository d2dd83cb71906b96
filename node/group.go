package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// Which workers serve one name together.
//
// Nothing that an engine tells identifies weights across formats: a GGUF file, the
// folder it was made from and a server elsewhere have no bytes in common, and a
// finetune shares its base's tokenizer, template and shape. So by default only
// workers that are alike in everything serve together, and the operator says what
// nobody can prove: workers that were started with the same --weights-id have the
// same weights. It is said at the worker, where the weights are known, not at the
// frontend, where one flag would admit whatever comes under the name. What can be
// proved is still demanded of them: ids that mean the same, one chat template, and
// answers of one form.
//
// Such workers may differ in engine, arithmetic, context, block size and what they
// offer. The model is served with what any of them can do (engine.Union), and the
// router sends each request to those that can do it.

// differs says in which field a worker's card differs from those that serve the
// same name; such workers would answer other tokens, and are not used.
func differs(a, b *discovery.Card) string {
	type field struct {
		name string
		a, b any
	}
	fields := []field{
		{"revision of the weights", a.Revision, b.Revision},
		{"tokenizer", a.Tokenizer.Digest, b.Tokenizer.Digest},
		{"chat template", a.Template.Digest, b.Template.Digest},
		{"context length", a.ContextLength, b.ContextLength},
		{"block size", a.BlockSize, b.BlockSize},
		{"numeric class", a.NumericClass, b.NumericClass},
		{"engine", a.Engine, b.Engine},
	}
	switch {
	case a.Weights != "" && a.Weights == b.Weights:
		fields = []field{
			{"meaning of the token ids", a.Vocabulary, b.Vocabulary},
			{"chat template, for which --chat-template FILE helps,", a.Template.Digest, b.Template.Digest},
			{"form of the answers: as text alone", a.TextOnly, b.TextOnly},
		}
	case a.Weights != "" && b.Weights != "":
		fields = []field{{"--weights-id", a.Weights, b.Weights}}
	}
	for _, f := range fields {
		if f.a != f.b {
			return fmt.Sprintf("%s (%v, the others have %v)", f.name, f.a, f.b)
		}
	}
	return ""
}

// remedy says what to do about a card that differs.
func remedy(a, b *discovery.Card) string {
	if a.Weights != "" && b.Weights != "" {
		return "give it another --model-name, or stop the others first"
	}
	return "give it another --model-name, or stop the others first; if all have the same weights, start each with the same --weights-id"
}

// vocabularyDigest is the SHA-256 of what the ids stand for in text, in hexadecimal:
// for each id the length of its bytes, as 4 bytes little endian, and the bytes.
func vocabularyDigest(t *tokenizer.Tokenizer) string {
	h := sha256.New()
	var size [4]byte
	for id := range t.VocabSize() {
		b := t.TokenBytes(dynamo.TokenID(id))
		binary.LittleEndian.PutUint32(size[:], uint32(len(b)))
		h.Write(size[:]) // never fails
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// offer is what a model is served with.
type offer struct {
	card     engine.Card // without adapters
	sampling discovery.Sampling
}

// offerLocked sums up what the members of a model can do, the oldest first, whose
// identity it bears; false if there are none.
func (f *fleet) offerLocked(mod *servedModel) (offer, bool) {
	var all []*member
	for _, m := range f.mu.members {
		if m.model == mod {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return offer{card: mod.card.Card, sampling: mod.card.Sampling}, false
	}
	slices.SortFunc(all, func(a, b *member) int {
		if c := a.instance.Started.Compare(b.instance.Started); c != 0 {
			return c
		}
		return cmp.Compare(a.id, b.id)
	})
	var o offer
	cards := make([]*engine.Card, len(all))
	for i, m := range all {
		cards[i] = &m.instance.Card.Card
		o.sampling = complete(o.sampling, m.instance.Card.Sampling)
	}
	o.card = engine.Union(cards...)
	o.card.Adapters = nil // see adapterSet
	return o, true
}

// complete fills in from b what a does not advise.
func complete(a, b discovery.Sampling) discovery.Sampling {
	pick := func(a, b *float64) *float64 {
		if a == nil {
			return b
		}
		return a
	}
	a.Temperature, a.TopP, a.MinP = pick(a.Temperature, b.Temperature), pick(a.TopP, b.TopP), pick(a.MinP, b.MinP)
	a.RepetitionPenalty = pick(a.RepetitionPenalty, b.RepetitionPenalty)
	if a.TopK == nil {
		a.TopK = b.TopK
	}
	return a
}

// settleOffer serves a model with what its members can do. Without exact nothing is
// taken away: a worker that has just gone may be back in a moment, and until then
// its requests are told that nobody is there, not that they are wrong.
func (f *fleet) settleOffer(mod *servedModel, exact bool) {
	f.serving.Lock()
	defer f.serving.Unlock()
	f.mu.Lock()
	next, some := f.offerLocked(mod)
	if !some || mod.meta == nil || f.mu.models[mod.name] != mod {
		f.mu.Unlock()
		return
	}
	if !exact {
		next.card = engine.Union(&mod.offer.card, &next.card)
	}
	same := reflect.DeepEqual(next, mod.offer)
	mod.offer = next
	f.mu.Unlock()
	if same {
		return
	}
	if err := f.install(mod); err != nil {
		f.log.Error("model not served as its workers could", obs.KeyModel, mod.name, obs.KeyError, err)
	}
}

// shrinkLater takes away what only workers could do that have gone, in a while.
func (f *fleet) shrinkLater(mod *servedModel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	mod.stopShrinking()
	if !f.mu.ended {
		mod.shrink = time.AfterFunc(modelGrace, func() { f.settleOffer(mod, true) })
	}
}

// stopShrinking ends the timer. The fleet's lock is held.
func (mod *servedModel) stopShrinking() {
	if mod.shrink != nil {
		mod.shrink.Stop()
	}
}

// install puts the model into the HTTP server as it is offered. Requests in progress
// stay with what they began with. serving is held.
func (f *fleet) install(mod *servedModel) error {
	f.mu.Lock()
	o, meta := mod.offer, mod.meta
	o.card.Adapters = mod.adapters.names()
	f.mu.Unlock()
	both, err := f.n.newDisagg(mod)
	if err != nil {
		return err
	}
	e, err := f.n.newMigrate(both, o.card)
	if err != nil {
		return err
	}
	return f.server.AddModel(&frontend.Model{
		Card: o.card, Engine: e, Tokenizer: meta.tokenizer, Template: meta.template,
		Vars: templateVars(meta.special), Defaults: samplingDefaults(o.sampling), Created: mod.created,
	})
}
