//go:build !dl || !linux || !(amd64 || arm64)

package transfer

func newUCX(a *Agent) backend {
	if a.cfg.UCX {
		a.log.Warn("there is no path ucx: this binary was built without the tag dl")
	}
	return noUCX{}
}

// noUCX stands for the path ucx where there is none.
type noUCX struct{}

func (noUCX) path() Path              { return PathUCX }
func (noUCX) address() string         { return "" }
func (noUCX) open(*Peer, string) rail { return nil }
