// Package eventtest is the conformance suite of event carriers: whatever implements
// event.Bus passes Run, or RunBubble if it works under testing/synctest, too. The
// tests of package event and of the carriers below it use it.
//
// It owns no carrier: a Fixture brings the two ends of one and a way to cut it. Its
// law is that of package event: what a subscriber makes of the deliveries is
// exactly what the publisher's events led to, whatever happened in between, and
// everything that was missed was told.
package eventtest

import (
	"testing"
	"testing/synctest"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/event"
)

// Fixture is a carrier between a worker and a frontend. What it started ends with
// the test.
type Fixture struct {
	// Worker is whom the frontend's end reaches.
	Worker dynamo.WorkerID
	// Publish is the worker's end, Subscribe the frontend's.
	Publish, Subscribe event.Bus
	// Cut keeps the two apart until Mend. The carrier gets over it by itself.
	Cut, Mend func()
}

// cases are the suite.
var cases = []struct {
	name string
	test func(*testing.T, Fixture)
}{
	{"Order", testOrder},
	{"LateJoiner", testLateJoiner},
	{"NoSnapshot", testNoSnapshot},
	{"GoesOn", testGoesOn},
	{"Overtaken", testOvertaken},
	{"Lagging", testLagging},
	{"Dropped", testDropped},
	{"Restart", testRestart},
	{"OtherLife", testOtherLife},
	{"CutWithinRing", testCutWithinRing},
	{"CutBeyondRing", testCutBeyondRing},
	{"BigPayloads", testBigPayloads},
	{"ManySubscribers", testManySubscribers},
	{"Unsubscribe", testUnsubscribe},
	{"Detach", testDetach},
	{"DetachIdle", testDetachIdle},
	{"Nobody", testNobody},
	{"AttachTwice", testAttachTwice},
}

// Run tests a carrier; open is called for each case.
func Run(t *testing.T, open func(*testing.T) Fixture) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// RunBubble is Run with each case in a bubble of testing/synctest, where time is
// virtual and a goroutine that is left behind fails the case.
func RunBubble(t *testing.T, open func(*testing.T) Fixture) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.test(t, open(t)) })
		})
	}
}
