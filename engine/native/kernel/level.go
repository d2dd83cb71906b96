package kernel

import "fmt"

// Level is an instruction level the kernels can run at.
type Level uint8

// The levels, slowest first.
const (
	// LevelScalar is portable Go: the definition of every kernel.
	LevelScalar Level = iota
	// LevelAVX2 needs AVX2, FMA and F16C.
	LevelAVX2
	// LevelAVX512 needs AVX-512 F, BW, VL, DQ and VNNI.
	LevelAVX512
)

// String returns the level's name: "scalar", "avx2" or "avx512-vnni".
func (l Level) String() string {
	switch l {
	case LevelScalar:
		return "scalar"
	case LevelAVX2:
		return "avx2"
	case LevelAVX512:
		return "avx512-vnni"
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// Best returns the fastest level this CPU and operating system offer.
func Best() Level {
	l := Levels()
	return l[len(l)-1]
}

// Levels lists the levels this CPU and operating system offer, slowest first.
// LevelScalar is always there.
func Levels() []Level { return detectLevels() }

// Kernels is the set of kernels at one level. It is immutable and may be used
// from any number of goroutines as long as their outputs do not overlap.
type Kernels struct {
	level Level
}

// New returns the kernels of level l. It fails when this CPU or operating
// system does not offer the level.
func New(l Level) (*Kernels, error) {
	have := Levels()
	for _, h := range have {
		if h == l {
			return &Kernels{level: l}, nil
		}
	}
	return nil, fmt.Errorf("kernel level %s is not available on this cpu, which offers %v", l, have)
}

// Level returns the level the kernels run at.
func (k *Kernels) Level() Level { return k.level }
