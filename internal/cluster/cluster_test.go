package cluster

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/plane/event"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "run this seed alone")
	faultsFlag    = flag.String("faults", "", "with -seed: these faults instead of drawn ones")
	schedulesFlag = flag.Int("schedules", 0, "number of fault schedules; 0 chooses: 1000, or 100 with -short")
	fromFlag      = flag.Uint64("from", 1, "first seed")
)

// TestCluster runs fault schedules. Every seed that ever failed is run again
// (testdata/seeds).
func TestCluster(t *testing.T) {
	o := Options{Model: filepath.Join(t.TempDir(), "tiny"), KeyFile: filepath.Join(t.TempDir(), "cluster.key")}
	if err := fixture.TinyModel(o.Model); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.KeyFile, []byte(strings.Repeat("5a", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if *seedFlag != 0 {
		o.Seed = *seedFlag
		var err error
		if o.Faults, err = Parse(*faultsFlag); err != nil {
			t.Fatal(err)
		}
		one(t, o)
		return
	}
	n := *schedulesFlag
	if n == 0 {
		if n = 1000; testing.Short() {
			n = 100
		}
	}
	requests, faults, migrations, live, preemptions, transfers, blocks, losses, began := 0, 0, 0, 0, 0, 0, 0, 0, time.Now()
	for _, seed := range append(kept(t), seeds(*fromFlag, n)...) {
		o.Seed = seed
		r := one(t, o)
		requests, faults, migrations, preemptions = requests+r.Requests, faults+len(r.Faults), migrations+r.Migrations, preemptions+r.Preemptions
		live += r.Live
		transfers, blocks, losses = transfers+r.Transfers, blocks+r.Blocks, losses+r.EventsLost
		if t.Failed() {
			return
		}
	}
	t.Logf("%d schedules, %d faults, %d requests, %d migrations (%d requests with their KV), %d preemptions, %d transfers, %d blocks in indexes, %d KV events lost in %v", n, faults, requests, migrations, live, preemptions, transfers, blocks, losses, time.Since(began).Round(time.Millisecond))
	if migrations == 0 {
		t.Error("no request migrated: the faults have no effect")
	}
	if live == 0 {
		t.Error("no request went on elsewhere with its KV")
	}
	if transfers == 0 {
		t.Error("no mocker took KV from another")
	}
	if blocks == 0 || losses == 0 {
		t.Errorf("%d blocks were compared with indexes and %d KV events lost: the schedules do not test much of them", blocks, losses)
	}
	if preemptions == 0 {
		t.Error("no mocker preempted anything: their KV caches are too large to test much")
	}
}

// one runs a seed in a subtest.
func one(t *testing.T, o Options) (r Result) {
	t.Run(strconv.FormatUint(o.Seed, 10), func(t *testing.T) {
		defer func() {
			if t.Failed() && len(r.Log) > 0 {
				path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("cluster-%d.log", o.Seed))
				if err := os.WriteFile(path, r.Log, 0o644); err == nil {
					t.Logf("log: %s", path)
				}
			}
		}()
		r = Run(t, o)
		if err := r.errFound(o.Seed); err != nil {
			t.Error(err)
		}
	})
	return r
}

func seeds(from uint64, n int) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = from + uint64(i)
	}
	return all
}

// kept reads the seeds that once failed.
func kept(t *testing.T) (all []uint64) {
	f, err := os.Open("testdata/seeds")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		n, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// TestFindsBrokenLaws takes migration away and wants the checks to see the loss.
func TestFindsBrokenLaws(t *testing.T) {
	o := Options{Model: filepath.Join(t.TempDir(), "tiny"), KeyFile: filepath.Join(t.TempDir(), "cluster.key")}
	if err := fixture.TinyModel(o.Model); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.KeyFile, []byte(strings.Repeat("5a", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Sabotage = func(c *node.Config) { c.Cluster.MigrationLimit = 0 }
	found := 0
	for _, o.Seed = range seeds(1, 20) {
		if r := Run(t, o); len(r.Problems) > 0 {
			found++
		}
	}
	if found == 0 {
		t.Error("20 schedules without migration break no law: the checks see nothing")
	}
}

// TestFindsDrift takes the digests of KV caches away and wants the checks to see what
// becomes of lost events.
func TestFindsDrift(t *testing.T) {
	o := Options{Model: filepath.Join(t.TempDir(), "tiny"), KeyFile: filepath.Join(t.TempDir(), "cluster.key")}
	if err := fixture.TinyModel(o.Model); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.KeyFile, []byte(strings.Repeat("5a", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Sabotage = func(c *node.Config) {
		if tap := c.Cluster.Tap; tap != nil {
			c.Cluster.Tap = func(s event.SubscribeFunc) event.SubscribeFunc { return tap(withoutDigests(s)) }
		}
	}
	found := 0
	for _, o.Seed = range seeds(1, 60) {
		if shape(o.Seed).Losses == 0 {
			continue
		}
		for _, err := range Run(t, o).Problems {
			if strings.HasPrefix(err.Error(), "I3") {
				found++
			}
		}
	}
	if found == 0 {
		t.Error("events are lost for good and break no law: the checks see nothing")
	}
}

// withoutDigests takes the digests out of KV events.
func withoutDigests(subscribe event.SubscribeFunc) event.SubscribeFunc {
	return func(ctx context.Context, src event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
		return func(yield func(event.Delivery, error) bool) {
			for d, err := range subscribe(ctx, src, from) {
				var b event.KVBatch
				if src.Topic == event.TopicKV && len(d.Payload) > 0 && b.Parse(d.Payload) == nil && b.HasDigest {
					b.HasDigest = false
					d.Payload = b.Append(nil)
				}
				if !yield(d, err) {
					return
				}
			}
		}
	}
}

func TestScheduleText(t *testing.T) {
	for seed := range uint64(50) {
		want := shape(seed).Faults(seed)
		got, err := Parse(Format(want))
		if err != nil || Format(got) != Format(want) {
			t.Fatalf("got %q, %v; want %q", Format(got), err, Format(want))
		}
	}
	for _, bad := range []string{"kill", "kill(w1)", "kill(w1)@x+1s", "kill(w1)@1s+x"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) succeeds", bad)
		}
	}
}
