//go:build !amd64

package kernel

func detectLevels() []Level { return []Level{LevelScalar} }

func (k *Kernels) quantizeFast(*Quantized, int, []float32) bool { return false }
func (k *Kernels) matMulQFast([]float32, int, *Quantized, int, *Matrix, int, int) bool {
	return false
}
func (k *Kernels) matMulFFast([]float32, int, []float32, int, int, *Matrix, int, int) bool {
	return false
}
func (k *Kernels) rmsNormFast(_, _, _ []float32, _ float32) bool       { return false }
func (k *Kernels) siluMulFast(_, _, _ []float32) bool                  { return false }
func (k *Kernels) addFast(_, _ []float32) bool                         { return false }
func (k *Kernels) ropeFast(_, _, _ []float32, _, _ int) bool           { return false }
func (k *Kernels) logSumExpFast([]float32) (max, sum float32, ok bool) { return 0, 0, false }
func (k *Kernels) argmaxFast([]float32) (int, bool)                    { return 0, false }
func (k *Kernels) storeKVFast(*KV, []byte, []byte, int, []float32, []float32) bool {
	return false
}
func (k *Kernels) scoresFast(*Attention, *AttendScratch, int, int) bool { return false }
func (k *Kernels) softmaxFast([]float32, int, int) (float32, bool)      { return 0, false }
func (k *Kernels) scaleFast(_, _ []float32, _ float32) bool             { return false }
func (k *Kernels) weighFast(*Attention, *AttendScratch, span) bool      { return false }
