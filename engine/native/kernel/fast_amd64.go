package kernel

import (
	"math"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// detectLevels reads the CPU's feature bits, which count only what the
// operating system saves across a context switch.
func detectLevels() []Level {
	l := []Level{LevelScalar}
	x := &cpu.X86
	if x.HasAVX2 && x.HasFMA && x.HasAVX && x.HasF16C {
		l = append(l, LevelAVX2)
		if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512VNNI {
			l = append(l, LevelAVX512)
		}
	}
	return l
}

// The argument blocks of the assembly; the generator repeats their offsets.
type (
	matMulQArgs struct {
		dst        unsafe.Pointer
		ldd        uintptr // bytes
		codes      unsafe.Pointer
		scales     unsafe.Pointer
		groupBytes uintptr
		groups     uintptr
		blocks     uintptr
		qcodes     unsafe.Pointer
		qscale     unsafe.Pointer
		qsum       unsafe.Pointer // or the bias, for 8-bit codes
	}
	matMulFArgs struct {
		dst            unsafe.Pointer
		ldd            uintptr // bytes
		x              unsafe.Pointer
		ldx            uintptr // bytes
		panel0, panel1 unsafe.Pointer
		k              uintptr
		dstStep        uintptr // bytes from one group's output to the next's
	}
	widenArgs struct {
		dst    unsafe.Pointer
		codes  unsafe.Pointer
		scales unsafe.Pointer
		n      uintptr // blocks, or columns of a float format
	}
	quantizeArgs struct {
		x, codes, scale, sum, bias unsafe.Pointer
		blocks                     uintptr
	}
	scoresArgs struct {
		keys       unsafe.Pointer
		table      unsafe.Pointer
		blockBytes uintptr
		blocks     uintptr
		headDim    uintptr
		q          unsafe.Pointer
		qStep      uintptr // bytes from one d to the next
		out        unsafe.Pointer
		outStep    uintptr // bytes from one block to the next
	}
	weighArgs struct {
		values     unsafe.Pointer
		table      unsafe.Pointer
		blockBytes uintptr
		from, to   uintptr
		weights    unsafe.Pointer
		weightStep uintptr // bytes from one block to the next
		out        unsafe.Pointer
		outStep    uintptr // bytes from one row to the next
		valueStep  uintptr // bytes from one position to the next
	}
)

func (k *Kernels) quantizeFast(q *Quantized, at int, x []float32) bool {
	a := quantizeArgs{
		x: unsafe.Pointer(&x[0]), codes: unsafe.Pointer(&q.codes[at*Block]),
		scale: unsafe.Pointer(&q.scale[at]), sum: unsafe.Pointer(&q.sum[at]), bias: unsafe.Pointer(&q.bias[at]),
		blocks: uintptr(q.k / Block),
	}
	switch k.level {
	case LevelAVX512:
		quantizeAVX512(&a)
	case LevelAVX2:
		quantizeAVX2(&a)
	default:
		return false
	}
	return true
}

// groupsAtOnce is the number of groups a tile of tokens walks before the next
// tile: their weights stay in the first-level cache, the tile's activations too.
const groupsAtOnce = 4

func (k *Kernels) matMulQFast(dst []float32, ldd int, q *Quantized, m int, w *Matrix, g0, g1 int) bool {
	if k.level == LevelScalar {
		return false
	}
	blocks := w.K / Block
	eight := w.Format == Q8 || w.Format == Q8S
	step := groupsAtOnce
	if m <= tileRows {
		step = g1 - g0
	}
	for g := g0; g < g1; g += step {
		data := w.data[g*w.groupBytes:]
		a := matMulQArgs{
			ldd: uintptr(ldd) * 4, codes: unsafe.Pointer(&data[0]), scales: unsafe.Pointer(&data[w.scaleOffset]),
			groupBytes: uintptr(w.groupBytes), groups: uintptr(min(step, g1-g)), blocks: uintptr(blocks),
		}
		for t := 0; t < m; {
			n := k.tileQ(min(tileRows-t%tileRows, m-t), eight)
			at := q.offset(t)
			a.dst = unsafe.Pointer(&dst[t*ldd+16*g])
			a.qcodes, a.qscale = unsafe.Pointer(&q.codes[at*Block]), unsafe.Pointer(&q.scale[at])
			a.qsum = unsafe.Pointer(&q.sum[at])
			if eight {
				a.qsum = unsafe.Pointer(&q.bias[at])
			}
			k.matMulQTile(w.Format, n, &a)
			t += n
		}
	}
	return true
}

// tileQ returns the largest tile for n tokens, 1…12.
func (k *Kernels) tileQ(n int, eight bool) int {
	switch {
	case k.level == LevelAVX2 && eight:
		return min(n, 2)
	case k.level == LevelAVX2:
		return min(n, 4)
	case n > 8 && n < 12:
		return 8
	}
	return n
}

func (k *Kernels) matMulQTile(f Format, n int, a *matMulQArgs) {
	if k.level == LevelAVX2 {
		switch f {
		case Q4:
			q4AVX2(n, a)
		case Q4S:
			q4sAVX2(n, a)
		case Q8:
			q8AVX2(n, a)
		case Q8S:
			q8sAVX2(n, a)
		}
		return
	}
	switch f {
	case Q4:
		q4AVX512(n, a)
	case Q4S:
		q4sAVX512(n, a)
	case Q8:
		q8AVX512(n, a)
	case Q8S:
		q8sAVX512(n, a)
	}
}

func (k *Kernels) matMulFFast(dst []float32, ldd int, x []float32, ldx, m int, w *Matrix, g0, g1 int) bool {
	if k.level == LevelScalar {
		return false
	}
	for t := 0; t < m; t++ {
		clear(dst[t*ldd+16*g0 : t*ldd+16*g1])
	}
	wide := 1
	if k.level == LevelAVX512 {
		wide = 2
	}
	chunk := panelK
	if w.Format == F32 {
		chunk = w.K // nothing to widen
	}
	var panels [2]panel
	for g := g0; g < g1; g += wide {
		n := min(wide, g1-g)
		for k0 := 0; k0 < w.K; k0 += chunk {
			a := matMulFArgs{ldd: uintptr(ldd) * 4, ldx: uintptr(ldx) * 4, k: uintptr(min(chunk, w.K-k0)), dstStep: 64}
			a.panel0 = k.widenFast(&panels[0], w, g, k0, int(a.k))
			if n == 2 {
				a.panel1 = k.widenFast(&panels[1], w, g+1, k0, int(a.k))
			}
			for t := 0; t < m; {
				rows := rowTile(k.level, m-t)
				a.dst, a.x = unsafe.Pointer(&dst[t*ldd+16*g]), unsafe.Pointer(&x[t*ldx+k0])
				if k.level == LevelAVX512 {
					matFAVX512(100*n+rows, &a)
				} else {
					matFAVX2(100*n+rows, &a)
				}
				t += rows
			}
		}
	}
	return true
}

// rowTile returns the largest row tile of the float kernels for n rows.
func rowTile(l Level, n int) int {
	switch {
	case n >= 12 && l == LevelAVX512:
		return 12
	case n >= 6:
		return 6
	}
	return min(n, 4)
}

// widenFast returns the address of columns k0…k0+n-1 of group g as float32,
// written to p unless the matrix holds them so.
func (k *Kernels) widenFast(p *panel, w *Matrix, g, k0, n int) unsafe.Pointer {
	data := w.group(g)
	if w.Format == F32 {
		return unsafe.Pointer(&data[k0*64])
	}
	i := formats[w.Format]
	a := widenArgs{dst: unsafe.Pointer(p), n: uintptr(n)}
	if w.Format.Quantized() {
		b := k0 / Block
		a.codes, a.scales, a.n = unsafe.Pointer(&data[b*i.codeBytes]), unsafe.Pointer(&data[w.scaleOffset+b*i.scaleBytes]), uintptr(n/Block)
	} else {
		a.codes = unsafe.Pointer(&data[k0*i.codeBytes])
	}
	if k.level == LevelAVX512 {
		widenAVX512(w.Format, &a)
	} else {
		widenAVX2(w.Format, &a)
	}
	return unsafe.Pointer(p)
}

func widenAVX512(f Format, a *widenArgs) {
	switch f {
	case Q4:
		widenAVX512q4(a)
	case Q4S:
		widenAVX512q4s(a)
	case Q8:
		widenAVX512q8(a)
	case Q8S:
		widenAVX512q8s(a)
	case BF16:
		widenAVX512BF16(a)
	case F16:
		widenAVX512F16(a)
	}
}

func widenAVX2(f Format, a *widenArgs) {
	switch f {
	case Q4:
		widenAVX2q4(a)
	case Q4S:
		widenAVX2q4s(a)
	case Q8:
		widenAVX2q8(a)
	case Q8S:
		widenAVX2q8s(a)
	case BF16:
		widenAVX2BF16(a)
	case F16:
		widenAVX2F16(a)
	}
}

func (k *Kernels) rmsNormFast(dst, x, weight []float32, eps float32) bool {
	full := len(x) / lanes
	if k.level == LevelScalar || full == 0 {
		return false
	}
	var l [lanes]float32
	if k.level == LevelAVX512 {
		squaresAVX512(&x[0], full, &l)
	} else {
		squaresAVX2(&x[0], full, &l)
	}
	for i, v := range x[full*lanes:] {
		l[i] = fma32(v, v, l[i])
	}
	r := rmsScale(fold16(&l), len(x), eps)
	if k.level == LevelAVX512 {
		scaleMulAVX512(&dst[0], &x[0], &weight[0], full, r)
	} else {
		scaleMulAVX2(&dst[0], &x[0], &weight[0], full, r)
	}
	for i := full * lanes; i < len(x); i++ {
		dst[i] = float32(x[i]*r) * weight[i]
	}
	return true
}

func (k *Kernels) siluMulFast(dst, gate, up []float32) bool {
	full := len(dst) / lanes
	switch {
	case full == 0:
	case k.level == LevelAVX512:
		siluAVX512(&dst[0], &gate[0], &up[0], full)
	case k.level == LevelAVX2:
		siluAVX2(&dst[0], &gate[0], &up[0], full)
	default:
		full = 0
	}
	for i := full * lanes; i < len(dst); i++ {
		dst[i] = float32(gate[i]/(1+exp32(-gate[i]))) * up[i]
	}
	return true
}

func (k *Kernels) addFast(dst, x []float32) bool {
	full := len(dst) / lanes
	switch {
	case full == 0:
	case k.level == LevelAVX512:
		addAVX512(&dst[0], &x[0], full)
	case k.level == LevelAVX2:
		addAVX2(&dst[0], &x[0], full)
	default:
		full = 0
	}
	for i := full * lanes; i < len(dst); i++ {
		dst[i] += x[i]
	}
	return true
}

func (k *Kernels) ropeFast(x, cos, sin []float32, heads, half int) bool {
	full := half / lanes
	if k.level == LevelScalar || full == 0 {
		return false
	}
	for h := 0; h < heads; h++ {
		lo, hi := x[2*h*half:][:half], x[(2*h+1)*half:][:half]
		if k.level == LevelAVX512 {
			ropeAVX512(&lo[0], &hi[0], &cos[0], &sin[0], full)
		} else {
			ropeAVX2(&lo[0], &hi[0], &cos[0], &sin[0], full)
		}
		for i := full * lanes; i < half; i++ {
			a, b := lo[i], hi[i]
			lo[i], hi[i] = float32(a*cos[i])-float32(b*sin[i]), float32(b*cos[i])+float32(a*sin[i])
		}
	}
	return true
}

// maxFast is maxOf over whole groups of 16 values.
func (k *Kernels) maxFast(x []float32) float32 {
	if k.level == LevelAVX512 {
		return maxAVX512(&x[0], len(x)/lanes)
	}
	return maxAVX2(&x[0], len(x)/lanes)
}

func (k *Kernels) logSumExpFast(x []float32) (m, sum float32, ok bool) {
	full := len(x) / lanes
	if k.level == LevelScalar || full == 0 {
		return 0, 0, false
	}
	m = max(maxOf(x[full*lanes:]), k.maxFast(x[:full*lanes])) + 0
	var l [lanes]float32
	if k.level == LevelAVX512 {
		sumExpAVX512(&x[0], full, m, &l)
	} else {
		sumExpAVX2(&x[0], full, m, &l)
	}
	for i, v := range x[full*lanes:] {
		l[i] += exp32(v - m)
	}
	return m, fold16(&l), true
}

// argmaxChunk is the number of values whose maximum Argmax takes at once; only
// the chunk that holds the largest is searched for its place.
const argmaxChunk = 512

func (k *Kernels) argmaxFast(x []float32) (int, bool) {
	if k.level == LevelScalar || len(x) < argmaxChunk {
		return 0, false
	}
	best, at := float32(math.Inf(-1)), 0
	i := 0
	for ; i+argmaxChunk <= len(x); i += argmaxChunk {
		if m := k.maxFast(x[i : i+argmaxChunk]); m > best {
			best, at = m, i
		}
	}
	if m := maxOf(x[i:]); m > best {
		best, at = m, i
	}
	for i, v := range x[at:min(len(x), at+argmaxChunk)] {
		if v == best {
			return at + i, true
		}
	}
	return 0, true // nothing above -Inf
}

func (k *Kernels) storeKVFast(c *KV, keys, values []byte, slot int, key, value []float32) bool {
	if k.level == LevelScalar || c.Type != KVF16 {
		return false
	}
	k.storeHalf((*uint16)(unsafe.Pointer(&values[slot*c.HeadDim*2])), value)
	var tmp [64]uint16
	to := unsafe.Slice((*uint16)(unsafe.Pointer(&keys[0])), len(keys)/2)
	for d := 0; d < len(key); d += len(tmp) {
		part := key[d:min(len(key), d+len(tmp))]
		k.storeHalf(&tmp[0], part)
		for i, h := range tmp[:len(part)] {
			to[(d+i)*KVBlock+slot] = h
		}
	}
	return true
}

// storeHalf converts x, a whole number of groups of 16, to binary16.
func (k *Kernels) storeHalf(dst *uint16, x []float32) {
	if k.level == LevelAVX512 {
		storeHalfAVX512(dst, &x[0], len(x)/lanes)
	} else {
		storeHalfAVX2(dst, &x[0], len(x)/lanes)
	}
}

func (k *Kernels) scoresFast(a *Attention, s *AttendScratch, n, blocks int) bool {
	if k.level == LevelScalar {
		return false
	}
	c := a.KV
	for r := 0; r < n; {
		rows := rowTile(k.level, n-r)
		wide := 1
		if k.level == LevelAVX512 {
			wide = scoreWidth(rows)
		}
		args := scoresArgs{
			keys: unsafe.Pointer(&c.data[c.offset(a.Layer, 0, a.Head)]), blockBytes: uintptr(c.BlockBytes()),
			headDim: uintptr(c.HeadDim), q: unsafe.Pointer(&s.q[r]), qStep: uintptr(n * 4), outStep: uintptr(n * 64),
		}
		for b := 0; b < blocks; {
			count := (blocks - b) / wide * wide
			if count == 0 {
				count, wide = blocks-b, 1
			}
			args.blocks, args.table = uintptr(count), unsafe.Pointer(&a.Blocks[b])
			args.out = unsafe.Pointer(&s.scores[(b*n+r)*lanes])
			k.scoresTile(c.Type, 100*wide+rows, &args)
			b += count
		}
		r += rows
	}
	return true
}

// scoreWidth returns how many blocks of positions a tile of so many rows takes
// at once, enough to keep both multipliers busy.
func scoreWidth(rows int) int {
	if rows >= 6 {
		return 2
	}
	return 4
}

func (k *Kernels) scoresTile(t KVType, tile int, a *scoresArgs) {
	switch {
	case k.level == LevelAVX512 && t == KVF16:
		scoresF16AVX512(tile, a)
	case k.level == LevelAVX512:
		scoresF32AVX512(tile, a)
	case t == KVF16:
		scoresF16AVX2(tile, a)
	default:
		scoresF32AVX2(tile, a)
	}
}

func (k *Kernels) softmaxFast(x []float32, stride, n int) (float32, bool) {
	if k.level == LevelScalar {
		return 0, false
	}
	if k.level == LevelAVX512 {
		return softmaxAVX512(&x[0], stride*4, n), true
	}
	return softmaxAVX2(&x[0], stride*4, n), true
}

// scaleFast writes x times r to dst, for a whole number of groups of 16.
func (k *Kernels) scaleFast(dst, x []float32, r float32) bool {
	switch k.level {
	case LevelAVX512:
		scaleAVX512(&dst[0], &x[0], len(x)/lanes, r)
	case LevelAVX2:
		scaleAVX2(&dst[0], &x[0], len(x)/lanes, r)
	default:
		return false
	}
	return true
}

func (k *Kernels) weighFast(a *Attention, s *AttendScratch, p span) bool {
	if k.level == LevelScalar {
		return false
	}
	c := a.KV
	b, size := p.from/KVBlock, c.Type.Bytes()
	values := c.offset(a.Layer, 0, a.Head) + c.HeadBytes()/2
	for r := p.row; r < p.row+p.count; {
		rows := rowTile(k.level, p.row+p.count-r)
		args := weighArgs{
			table: unsafe.Pointer(&a.Blocks[0]), blockBytes: uintptr(c.BlockBytes()), from: uintptr(p.from), to: uintptr(p.to),
			weights: unsafe.Pointer(&s.scores[(b*p.rows+r)*lanes]), weightStep: uintptr(p.rows * 64),
			outStep: uintptr(c.HeadDim * 4), valueStep: uintptr(c.HeadDim * size),
		}
		for d := 0; d < c.HeadDim; {
			wide := weighWidth(k.level, rows, (c.HeadDim-d)/lanes)
			args.values, args.out = unsafe.Pointer(&c.data[values+d*size]), unsafe.Pointer(&s.out[r*c.HeadDim+d])
			k.weighTile(c.Type, 100*wide+rows, &args)
			d += wide * lanes
		}
		r += rows
	}
	return true
}

// weighWidth returns how many groups of values a tile of so many rows takes at
// once, of those left.
func weighWidth(l Level, rows, left int) int {
	switch {
	case l == LevelAVX2:
		return 1
	case rows >= 6 && left >= 2:
		return 2
	case rows <= 4 && left >= 4:
		return 4
	}
	return 1
}

func (k *Kernels) weighTile(t KVType, tile int, a *weighArgs) {
	switch {
	case k.level == LevelAVX512 && t == KVF16:
		weighF16AVX512(tile, a)
	case k.level == LevelAVX512:
		weighF32AVX512(tile, a)
	case t == KVF16:
		weighF16AVX2(tile, a)
	default:
		weighF32AVX2(tile, a)
	}
}
