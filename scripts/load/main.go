// Command load measures a chat endpoint with short prompts in a closed loop:
// requests per second, time to first content, and the CPU time that given
// server processes spent meanwhile. It speaks raw HTTP/1.1 so that its own cost
// stays small. The figure scripts use it on every server they compare.
//
//	load -url http://127.0.0.1:8000 -model smollm2 -c 64 -n 20000 -pid ours=1234
//
// With -canned it is the server itself: one whose answers cost nothing, for
// measuring what stands before it.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// userHZ is the unit of CPU times in /proc on every architecture Go supports.
const userHZ = 100.0

type options struct {
	address, model     string
	connections, words int
	requests, warmUp   int64
	maxTokens          int
	unary              bool
	timeout            time.Duration
	pids               map[string]string
	floor              bool
	sink, canned       string
}

func main() {
	o, err := parse()
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	url := flag.String("url", "http://127.0.0.1:8000", "base URL")
	pids := flag.String("pid", "", "processes to account for: name=pid,name=pid")
	flag.StringVar(&o.model, "model", "smollm2", "model name")
	flag.IntVar(&o.connections, "c", 64, "connections, each with one request at a time")
	flag.Int64Var(&o.requests, "n", 10000, "requests to measure")
	flag.Int64Var(&o.warmUp, "warmup", 500, "requests sent before")
	flag.IntVar(&o.words, "words", 32, "prompt length in words")
	flag.IntVar(&o.maxTokens, "max-tokens", 16, "max_tokens")
	flag.BoolVar(&o.unary, "unary", false, "ask for one JSON answer instead of a stream")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Second, "per request")
	flag.BoolVar(&o.floor, "floor", false, "measure what a paced token costs the cheapest server there can be, and nothing else")
	flag.StringVar(&o.sink, "sink", "", "internal: the other end of -floor")
	flag.StringVar(&o.canned, "canned", "", "be a server of canned answers at each of these addresses, separated by commas")
	flag.Parse()
	o.address = strings.TrimPrefix(*url, "http://")
	o.pids = map[string]string{}
	for _, p := range strings.FieldsFunc(*pids, func(r rune) bool { return r == ',' }) {
		name, pid, ok := strings.Cut(p, "=")
		if !ok {
			return o, fmt.Errorf("-pid %q is not name=pid", p)
		}
		o.pids[name] = pid
	}
	return o, nil
}

func run(o options) error {
	switch {
	case o.sink != "":
		return sink(o.sink)
	case o.floor:
		return floor()
	case o.canned != "":
		return canned(o.canned, o.model)
	}
	if err := phase(o, o.warmUp, nil); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	before, err := cpu(o.pids)
	if err != nil {
		return err
	}
	var first []time.Duration
	start := time.Now()
	if err := phase(o, o.requests, &first); err != nil {
		return err
	}
	wall := time.Since(start).Seconds()
	after, err := cpu(o.pids)
	if err != nil {
		return err
	}
	slices.Sort(first)
	at := func(q float64) float64 {
		return float64(first[int(q*float64(len(first)-1))].Microseconds()) / 1000
	}
	fmt.Printf("%d requests, %d connections: %.0f req/s, first content p50 %.2f ms, p99 %.2f ms", o.requests, o.connections, float64(o.requests)/wall, at(0.5), at(0.99))
	for name := range o.pids {
		fmt.Printf(", %s %.3f CPU-s per 1k requests", name, (after[name]-before[name])/float64(o.requests)*1000)
	}
	fmt.Println()
	return nil
}

// phase sends n requests over o.connections connections; first receives each
// request's time to first content unless nil.
func phase(o options, n int64, first *[]time.Duration) error {
	var left atomic.Int64
	left.Store(n)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for i := range o.connections {
		wg.Add(1)
		go func() {
			defer wg.Done()
			times, err := client(o, uint64(i), &left)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			if first != nil {
				*first = append(*first, times...)
			}
		}()
	}
	wg.Wait()
	return failed
}

func client(o options, id uint64, left *atomic.Int64) ([]time.Duration, error) {
	c, err := net.DialTimeout("tcp", o.address, o.timeout)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, random := bufio.NewReaderSize(c, 32<<10), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), id))
	var request []byte
	var times []time.Duration
	for left.Add(-1) >= 0 {
		request = body(o, request[:0], random)
		_ = c.SetDeadline(time.Now().Add(o.timeout))
		start := time.Now()
		if _, err := c.Write(request); err != nil {
			return times, err
		}
		t, err := answer(r)
		if err != nil {
			return times, err
		}
		times = append(times, t.Sub(start))
	}
	return times, nil
}

// words are common and one token each in most vocabularies.
var words = strings.Fields("time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program question work government number night point home water room mother area money story fact month lot right study book eye job word business issue side kind head house service friend father power hour game line end member law car city")

func body(o options, b []byte, random *rand.Rand) []byte {
	head := `{"model":"` + o.model + `","max_tokens":` + strconv.Itoa(o.maxTokens)
	if !o.unary {
		head += `,"stream":true,"stream_options":{"include_usage":true}`
	}
	head += `,"messages":[{"role":"user","content":"`
	text := make([]byte, 0, 8*o.words)
	text = strconv.AppendUint(text, random.Uint64(), 36)
	for range o.words - 1 {
		text = append(append(text, ' '), words[random.IntN(len(words))]...)
	}
	const tail = `"}]}`
	b = append(b, "POST /v1/chat/completions HTTP/1.1\r\nHost: "+o.address+"\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(head)+len(text)+len(tail)), 10)
	b = append(append(b, "\r\n\r\n"...), head...)
	return append(append(b, text...), tail...)
}

var errStatus = errors.New("status")

// answer reads one response and returns when its first content arrived.
func answer(r *bufio.Reader) (time.Time, error) {
	status, err := r.ReadString('\n')
	if err != nil {
		return time.Time{}, err
	}
	length, chunked := -1, false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return time.Time{}, err
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "" {
			break
		}
		switch strings.ToLower(name) {
		case "content-length":
			length, _ = strconv.Atoi(strings.TrimSpace(value))
		case "transfer-encoding":
			chunked = true
		}
	}
	var first time.Time
	if !chunked {
		_, err := io.CopyN(io.Discard, r, int64(max(length, 0)))
		first = time.Now()
		if err == nil && !strings.Contains(status, " 200") {
			err = fmt.Errorf("%w: %s", errStatus, strings.TrimSpace(status))
		}
		return first, err
	}
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return first, err
		}
		size, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
		if err != nil {
			return first, err
		}
		data, err := r.Peek(int(min(size, 4096)))
		if err != nil {
			return first, err
		}
		if first.IsZero() && bytes.Contains(data, []byte(`"content":"`)) {
			first = time.Now()
		}
		if _, err := r.Discard(int(size) + 2); err != nil {
			return first, err
		}
		if size == 0 {
			return first, nil
		}
	}
}

// cpu returns the user and system seconds of each process and its threads.
func cpu(pids map[string]string) (map[string]float64, error) {
	used := map[string]float64{}
	for name, pid := range pids {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return nil, err
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		used[name] = (user + system) / userHZ
	}
	return used, nil
}
