package frontend

import (
	"cmp"
	"slices"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// StateReady is the State of an instance that gets requests.
const StateReady = "ready"

// Instance is one worker that this server knows, for /health.
type Instance struct {
	// Namespace, Component and Endpoint are where the worker registered.
	Namespace, Component, Endpoint string
	// ID names the worker.
	ID dynamo.WorkerID
	// Address is where its connection goes: "tcp://host:port" or "unix:///path",
	// several of them separated by spaces, or a word for none.
	Address string
	// Model is the name it serves.
	Model string
	// State is StateReady, or says in words why the worker gets no requests.
	State string
	// Load is its last report.
	Load engine.Load
}

// instanceHealth is an instance in /health: the reference's fields, then ours.
type instanceHealth struct {
	Component string            `json:"component"`
	Endpoint  string            `json:"endpoint"`
	Namespace string            `json:"namespace"`
	ID        uint64            `json:"instance_id"`
	Transport map[string]string `json:"transport"`

	Worker string     `json:"worker"`
	Model  string     `json:"model"`
	State  string     `json:"state"`
	Load   loadHealth `json:"load"`
}

type loadHealth struct {
	Running    int    `json:"running"`
	Waiting    int    `json:"waiting"`
	MaxRunning int    `json:"max_running"`
	KVBlocks   int    `json:"kv_blocks"`
	KVUsed     int    `json:"kv_blocks_used"`
	Steps      uint64 `json:"steps"`
}

// appendInstances appends `"endpoints":[…],"instances":[…]` in a stable order.
func appendInstances(dst []byte, list []Instance) ([]byte, error) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.dyn(), b.dyn()), cmp.Compare(a.ID, b.ID))
	})
	endpoints, shown := []string{}, make([]instanceHealth, 0, len(list))
	for i := range list {
		in := &list[i]
		endpoints = append(endpoints, in.dyn())
		shown = append(shown, instanceHealth{
			Component: in.Component, Endpoint: in.Endpoint, Namespace: in.Namespace, ID: uint64(in.ID), Transport: transport(in.Address),
			Worker: in.ID.String(), Model: in.Model, State: in.State,
			Load: loadHealth{in.Load.Running, in.Load.Waiting, in.Load.MaxRunning, in.Load.KVBlocks, in.Load.KVUsed, in.Load.Steps},
		})
	}
	body := struct {
		Endpoints []string         `json:"endpoints"`
		Instances []instanceHealth `json:"instances"`
	}{slices.Compact(endpoints), shown}
	text, err := json.Marshal(body, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return dst, err
	}
	return append(dst, text[1:len(text)-1]...), nil // without its braces
}

// dyn is the reference's name of where the worker registered.
func (i *Instance) dyn() string {
	return "dyn://" + i.Namespace + "." + i.Component + "." + i.Endpoint
}

// transport splits an address by its kind; of several of a kind the first counts.
func transport(address string) map[string]string {
	t := map[string]string{}
	for _, a := range strings.Fields(address) {
		kind, where, ok := strings.Cut(a, "://")
		if !ok {
			kind, where = "local", a
		}
		if _, twice := t[kind]; !twice {
			t[kind] = where
		}
	}
	return t
}
