package main

import (
	"net/http/httptest"
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dynamo-go/dynamo/internal/s3server"
)

// objects NAME serves an object store with a bucket kv-cache, and sets NAME to its
// address and the environment to the credentials.
func objects(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: objects NAME")
	}
	s := httptest.NewServer(s3server.New("kv-cache", s3server.Credentials{KeyID: "id", Secret: "secret", Region: "us-east-1"}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
	ts.Setenv("AWS_ACCESS_KEY_ID", "id")
	ts.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
}

// retry REGEXP COMMAND… runs a command until it succeeds and prints what matches.
func retry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: retry REGEXP COMMAND…")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for range 600 {
		if ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%v does not come to print %q; it last printed: %s", args[1:], args[0], ts.ReadFile("stdout"))
}
