package placement_test
import ("testing";"math/rand/v2";"time";"github.com/dynamo-go/dynamo/router/placement";"fmt")
func TestMin(t *testing.T) {
	for _, p := range []placement.Policy{placement.RoundRobin, placement.LeastLoaded, placement.KV, placement.Reference} {
	for _, n := range []int{64, 1000} { for _, h := range []int{8, n} {
		rng := rand.New(rand.NewPCG(3, 4))
		var f placement.Fleet
		for _, c := range busy(n, rng) { f.Add(c) }
		q := question(n, h, rng)
		record := make([]byte, 0, placement.MaxRecordBytes)
		params := placement.DefaultParams(p)
		best, bestD := time.Hour, time.Hour
		for range 1000 {
			a := time.Now()
			for range 20 { q.Seed++; q.Now = q.Now.Add(time.Microsecond); d := f.Decide(params, q); d.AppendRecord(record, 0); f.Touch(d.Winner).Turn = q.Seed; f.Touch(int(q.Seed) % n) }
			best = min(best, time.Since(a)/20)
			a = time.Now()
			for range 20 { q.Seed++; q.Now = q.Now.Add(time.Microsecond); d := f.Decide(params, q);  f.Touch(d.Winner).Turn = q.Seed; f.Touch(int(q.Seed) % n) }
			bestD = min(bestD, time.Since(a)/20)
		}
		fmt.Println(p, n, h, "decide+record", best, "decide", bestD)
	}}}
}
