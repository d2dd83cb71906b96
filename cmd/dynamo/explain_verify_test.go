package main

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/placement"
)

// decided returns the record of a decision among three workers.
func decided(t *testing.T) []byte {
	t.Helper()
	all := make([]placement.Candidate, 3)
	for i := range all {
		all[i].Key, all[i].State, all[i].Booked = placement.Key{ID: dynamo.WorkerID(i + 1), Epoch: 1}, placement.Up, i
	}
	d := placement.Decide(placement.DefaultParams(placement.KV), placement.Request{Seed: 1, Now: time.Unix(1000, 0), Tokens: 100}, all, nil)
	return d.AppendRecord(nil, 0)
}

func TestVerify(t *testing.T) {
	good := decided(t)
	swapped := append([]byte(nil), good...) // the second candidate as if it had won
	copy(swapped[64:96], good[96:128])
	copy(swapped[96:128], good[64:96])
	list := func(records ...[]byte) string {
		var all []string
		for _, r := range records {
			all = append(all, `"`+base64.StdEncoding.EncodeToString(r)+`"`)
		}
		return strings.Join(all, ",")
	}
	for _, c := range []struct{ name, body, want, fault string }{
		{"all of a frontend", `{"routers":[{"model":"a","records":[` + list(good, good) + `]},{"model":"b","records":[]}]}`, "model a: 2 of 2 decisions come out the same\nmodel b: 0 of 0", ""},
		{"one request", `{"request":"x","model":"a","attempts":[{"record":` + list(good) + `}]}`, "model a: 1 of 1 decisions", ""},
		{"another winner", `{"routers":[{"model":"a","records":[` + list(good, swapped) + `]}]}`, "decision 2 of model a: ", "1 of 2 decisions come out otherwise"},
		{"cut off", `{"routers":[{"model":"a","records":[` + list(good[:70]) + `]}]}`, "bytes", "1 of 1 decisions come out otherwise"},
		{"of another version", `{"routers":[{"model":"a","records":[` + list(append([]byte{99}, good[1:]...)) + `]}]}`, "version 99", "1 of 1"},
		{"none", `{"routers":[{"model":"a","records":[]}]}`, "", "no decision"},
		{"nothing", `{}`, "", "no decision"},
		{"no JSON", `<html>`, "", "understand the records"},
		{"no base64", `{"routers":[{"records":["?"]}]}`, "", "understand the records"},
	} {
		var out strings.Builder
		err := verify([]byte(c.body), &out)
		if got := fmt.Sprint(err); (err == nil) != (c.fault == "") || !strings.Contains(got, c.fault) && c.fault != "" || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: got %q, %v; want %q, %q", c.name, out.String(), err, c.want, c.fault)
		}
	}
}
