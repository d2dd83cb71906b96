package chat

import (
	"math"
	"math/big"
	"math/bits"
	"strings"
	"unsafe"
)

// maxBits bounds integers; it is a little more than Python's 4300 digits.
const maxBits = 14300

func tooWide() error { return fault("integers of more than %d bits are not computed with", maxBits) }

// truth is bool(v).
func (v Value) truth() bool {
	switch v.k {
	case kMissing, kUndefined, kNone:
		return false
	case kBool, kInt, kString:
		return v.n != 0
	case kFloat:
		return v.float() != 0
	case kList, kTuple:
		return len(v.items()) > 0
	case kDict:
		return v.dict().Len() > 0
	case kView:
		return v.view().d.Len() > 0
	case kRange:
		return v.rng().length() > 0
	}
	return true
}

func unsupported(op operator, l, r Value) error {
	return fault("unsupported operand type(s) for %s: '%s' and '%s'", op, l.typeName(), r.typeName())
}

func (r *run) arithmetic(op operator, a, b Value) (Value, error) {
	if a.isNumber() && b.isNumber() {
		return r.numbers(op, a, b)
	}
	if a.k == kUndefined {
		return Value{}, r.undefinedError(a)
	}
	switch op {
	case opAdd:
		return r.add(a, b)
	case opMul:
		return r.repeat(a, b)
	case opMod:
		if a.k == kString {
			return r.percent(a, b)
		}
	}
	if b.k == kUndefined {
		return Value{}, r.undefinedError(b)
	}
	return Value{}, unsupported(op, a, b)
}

// add joins strings, lists and tuples.
func (r *run) add(a, b Value) (Value, error) {
	switch {
	case a.k == kString && b.k == kString:
		if a.markup != b.markup {
			var err error
			if a, err = r.escape(a); err == nil {
				b, err = r.escape(b)
			}
			if err != nil {
				return Value{}, err
			}
		}
		if err := r.room(int(a.n + b.n)); err != nil {
			return Value{}, err
		}
		return sub(a, a.str()+b.str()), nil
	case a.k == b.k && (a.k == kList || a.k == kTuple):
		x, y := a.items(), b.items()
		if err := r.room(24 * (len(x) + len(y))); err != nil {
			return Value{}, err
		}
		items := append(append(make([]Value, 0, len(x)+len(y)), x...), y...)
		return Value{k: a.k, p: unsafe.Pointer(&sequence{items})}, nil
	case b.k == kUndefined:
		return Value{}, r.undefinedError(b)
	case a.k == kString:
		return Value{}, fault("can only concatenate str (not \"%s\") to str", b.typeName())
	case a.k == kList || a.k == kTuple:
		return Value{}, fault("can only concatenate %s (not \"%s\") to %s", a.typeName(), b.typeName(), a.typeName())
	}
	return Value{}, unsupported(opAdd, a, b)
}

// repeat multiplies a string, list or tuple by a number.
func (r *run) repeat(a, b Value) (Value, error) {
	if b.k == kUndefined {
		return Value{}, r.undefinedError(b)
	}
	if b.k == kString || b.k == kList || b.k == kTuple {
		a, b = b, a
	}
	if a.k != kString && a.k != kList && a.k != kTuple {
		return Value{}, unsupported(opMul, a, b)
	}
	if b.k == kBig {
		return Value{}, fault("cannot fit 'int' into an index-sized integer")
	}
	if b.k != kInt && b.k != kBool {
		return Value{}, fault("can't multiply sequence by non-int of type '%s'", b.typeName())
	}
	size, width := len64(a), 1
	if a.k != kString {
		width = 24
	}
	n := max(b.n, 0)
	if hi, total := bits.Mul64(uint64(size*width), uint64(n)); hi != 0 || total > uint64(r.most) {
		return Value{}, r.room(-1)
	}
	if err := r.room(size * width * int(n)); err != nil {
		return Value{}, err
	}
	if a.k == kString {
		if size == 0 {
			n = 0
		}
		return sub(a, strings.Repeat(a.str(), int(n))), nil
	}
	items := make([]Value, 0, size*int(n))
	for range n {
		if size == 0 {
			break
		}
		items = append(items, a.items()...)
	}
	return Value{k: a.k, p: unsafe.Pointer(&sequence{items})}, nil
}

// len64 is the number of bytes of a string or of items of a sequence.
func len64(v Value) int {
	if v.k == kString {
		return int(v.n)
	}
	return len(v.items())
}

func (r *run) numbers(op operator, a, b Value) (Value, error) {
	if a.k == kFloat || b.k == kFloat {
		return floats(op, a.toFloat(), b.toFloat())
	}
	if a.k == kBig || b.k == kBig {
		return r.wide(op, a, b)
	}
	x, y := a.n, b.n
	var z int64
	switch op {
	case opAdd:
		z = x + y
		if (z > x) != (y > 0) && y != 0 {
			return r.wide(op, a, b)
		}
	case opSub:
		z = x - y
		if (z < x) != (y > 0) && y != 0 {
			return r.wide(op, a, b)
		}
	case opMul:
		return r.multiply(x, y)
	case opDiv:
		if y == 0 {
			return Value{}, fault("division by zero")
		}
		return divide(x, y), nil
	case opFloorDiv, opMod:
		if y == 0 {
			return Value{}, zeroDivision(op)
		}
		if y == -1 {
			if op == opMod {
				return Int(0), nil
			}
			return r.numbers(opSub, Int(0), a)
		}
		q, m := x/y, x%y
		if m != 0 && (m < 0) != (y < 0) {
			q--
			m += y
		}
		if op == opMod {
			return Int(m), nil
		}
		return Int(q), nil
	case opPow:
		return r.power(x, y)
	}
	return Int(z), nil
}

func zeroDivision(op operator) error {
	if op == opMod {
		return fault("integer modulo by zero")
	}
	return fault("integer division or modulo by zero")
}

// divide is true division of integers, correctly rounded as Python's.
func divide(x, y int64) Value {
	const exact = 1 << 53
	if x > -exact && x < exact && y > -exact && y < exact {
		return Float(float64(x) / float64(y))
	}
	f, _ := new(big.Rat).SetFrac(big.NewInt(x), big.NewInt(y)).Float64()
	return Float(f)
}

func (r *run) multiply(x, y int64) (Value, error) {
	hi, lo := bits.Mul64(magnitude(x), magnitude(y))
	if hi != 0 || lo > math.MaxInt64 {
		return r.wide(opMul, Int(x), Int(y))
	}
	if (x < 0) != (y < 0) {
		return Int(-int64(lo)), nil
	}
	return Int(int64(lo)), nil
}

func magnitude(x int64) uint64 {
	if x < 0 {
		return -uint64(x)
	}
	return uint64(x)
}

func (r *run) power(x, y int64) (Value, error) {
	if y < 0 || y > 62 || int(y)*bits.Len64(magnitude(x)) > 62 {
		return r.wide(opPow, Int(x), Int(y))
	}
	z := int64(1)
	for range y {
		z *= x
	}
	return Int(z), nil
}

// wide computes with integers beyond 64 bits.
func (r *run) wide(op operator, a, b Value) (Value, error) {
	x, y := a.toBig(), b.toBig()
	words := (x.BitLen() + y.BitLen()) >> 6
	if err := r.step(1 + words*words>>4); err != nil {
		return Value{}, err
	}
	z := new(big.Int)
	switch op {
	case opAdd:
		z.Add(x, y)
	case opSub:
		z.Sub(x, y)
	case opMul:
		z.Mul(x, y)
	case opDiv:
		if y.Sign() == 0 {
			return Value{}, fault("division by zero")
		}
		f, _ := new(big.Rat).SetFrac(x, y).Float64()
		if math.IsInf(f, 0) {
			return Value{}, fault("integer division result too large for a float")
		}
		return Float(f), nil
	case opFloorDiv, opMod:
		if y.Sign() == 0 {
			return Value{}, zeroDivision(op)
		}
		m := new(big.Int)
		z.DivMod(x, y, m)
		if y.Sign() < 0 && m.Sign() != 0 {
			z.Sub(z, big.NewInt(1))
			m.Add(m, y)
		}
		if op == opMod {
			z = m
		}
	case opPow:
		switch {
		case y.Sign() < 0 && x.Sign() == 0:
			return Value{}, fault("0.0 cannot be raised to a negative power")
		case y.Sign() < 0:
			return floatPower(a.toFloat(), b.toFloat())
		case x.BitLen() > 1 && (!y.IsInt64() || y.Int64() > maxBits || int64(x.BitLen()-1)*y.Int64() > maxBits):
			return Value{}, tooWide()
		case x.BitLen() <= 1 && y.BitLen() > 1:
			// Only whether the exponent is odd matters to 0, 1 and -1.
			y = big.NewInt(int64(y.Bit(0)) + 2)
		}
		if err := r.step(maxBits >> 4); err != nil {
			return Value{}, err
		}
		z.Exp(x, y, nil)
	}
	if z.BitLen() > maxBits {
		return Value{}, tooWide()
	}
	return intValue(z), nil
}

func floats(op operator, x, y float64) (Value, error) {
	switch op {
	case opAdd:
		return Float(x + y), nil
	case opSub:
		return Float(x - y), nil
	case opMul:
		return Float(x * y), nil
	case opPow:
		return floatPower(x, y)
	}
	if y == 0 {
		switch op {
		case opFloorDiv:
			return Value{}, fault("float floor division by zero")
		case opMod:
			return Value{}, fault("float modulo")
		}
		return Value{}, fault("float division by zero")
	}
	if op == opDiv {
		return Float(x / y), nil
	}
	m := math.Mod(x, y)
	q := (x - m) / y
	if m != 0 {
		if (y < 0) != (m < 0) {
			m += y
			q--
		}
	} else {
		m = math.Copysign(0, y)
	}
	if op == opMod {
		return Float(m), nil
	}
	if q == 0 {
		return Float(math.Copysign(0, x/y)), nil
	}
	whole := math.Floor(q)
	if q-whole > 0.5 {
		whole++
	}
	return Float(whole), nil
}

func floatPower(x, y float64) (Value, error) {
	if x == 0 && y < 0 {
		return Value{}, fault("0.0 cannot be raised to a negative power")
	}
	if x < 0 && y != math.Floor(y) && !math.IsInf(y, 0) {
		return Value{}, fault("complex numbers are not supported")
	}
	z := math.Pow(x, y)
	if y == math.Trunc(y) && math.Abs(y) <= 1024 && z != 0 && !math.IsInf(z, 0) && !math.IsNaN(z) {
		z = wholePower(x, int(y))
	}
	if math.IsInf(z, 0) && !math.IsInf(x, 0) && !math.IsInf(y, 0) {
		return Value{}, fault("(34, 'Numerical result out of range')")
	}
	return Float(z), nil
}

// wholePower is x to the power of an integer, correctly rounded as the C
// library's pow is; math.Pow is a few units off.
func wholePower(x float64, y int) float64 {
	const precision = 256
	z := new(big.Float).SetPrec(precision).SetInt64(1)
	base := new(big.Float).SetPrec(precision).SetFloat64(x)
	n := y
	if n < 0 {
		n = -n
	}
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			z.Mul(z, base)
		}
		base.Mul(base, base)
	}
	if y < 0 {
		z.Quo(new(big.Float).SetPrec(precision).SetInt64(1), z)
	}
	f, _ := z.Float64()
	return f
}

func (r *run) sign(v Value, minus bool) (Value, error) {
	switch v.k {
	case kBool, kInt:
		if minus {
			return r.numbers(opSub, Int(0), v)
		}
		return Int(v.n), nil
	case kBig:
		if minus {
			return intValue(new(big.Int).Neg(v.big())), nil
		}
		return v, nil
	case kFloat:
		if minus {
			return Float(-v.float()), nil
		}
		return v, nil
	case kUndefined:
		return Value{}, r.undefinedError(v)
	}
	op := "+"
	if minus {
		op = "-"
	}
	return Value{}, fault("bad operand type for unary %s: '%s'", op, v.typeName())
}
