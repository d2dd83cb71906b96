//go:build dl && linux && (amd64 || arm64)

package transfer

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// ucxLibrary is libucp as the dynamic linker has loaded it: the addresses of the
// functions in use, by the layouts of API 1.13, which later libraries keep.
type ucxLibrary struct {
	initVersion, configRead, configModify, configRelease, cleanup             uintptr
	workerCreate, workerDestroy, workerProgress, workerArm, workerEvents      uintptr
	workerAddress, releaseAddress, epCreate, epClose                          uintptr
	tagSend, tagSendSync, tagProbe, tagReceive, requestStatus, requestRelease uintptr
	statusText                                                                uintptr
	// broken is what libucp calls for an endpoint that has failed. There is one such
	// function for the life of the process, because callbacks are never freed.
	broken uintptr
}

const (
	ucxLibraryName = "libucp.so.0"
	ucxMajor       = 1
	ucxMinor       = 13
)

// ucxEnvironment is what libucp must not do to a Go process, unless the
// environment says otherwise: take over its signals, patch its memory calls (which
// Go does not go through, so that what libucp concludes from them would be wrong),
// and write to its standard output.
var ucxEnvironment = [...][2]string{{"UCX_HANDLE_ERRORS", "none"}, {"UCX_ERROR_SIGNALS", ""}, {"UCX_MEM_EVENTS", "n"}, {"UCX_LOG_FILE", "stderr"}, {"UCX_LOG_LEVEL", "fatal"}}

// loadUCX loads the library, once.
var loadUCX = sync.OnceValues(func() (*ucxLibrary, error) {
	libc, err := purego.Dlopen("libc.so.6", purego.RTLD_NOW)
	if err != nil {
		return nil, err
	}
	setenv, err := purego.Dlsym(libc, "setenv")
	if err != nil {
		return nil, err
	}
	for _, e := range ucxEnvironment {
		name, value := cString(e[0]), cString(e[1])
		purego.SyscallN(setenv, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(value)), 0)
	}
	ucp, err := purego.Dlopen(ucxLibraryName, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, err
	}
	l := &ucxLibrary{broken: purego.NewCallback(ucxBroken)}
	for _, s := range []struct {
		to   *uintptr
		name string
	}{
		{&l.initVersion, "ucp_init_version"}, {&l.configRead, "ucp_config_read"}, {&l.configModify, "ucp_config_modify"}, {&l.configRelease, "ucp_config_release"},
		{&l.cleanup, "ucp_cleanup"}, {&l.workerCreate, "ucp_worker_create"}, {&l.workerDestroy, "ucp_worker_destroy"}, {&l.workerProgress, "ucp_worker_progress"},
		{&l.workerArm, "ucp_worker_arm"}, {&l.workerEvents, "ucp_worker_get_efd"}, {&l.workerAddress, "ucp_worker_get_address"}, {&l.releaseAddress, "ucp_worker_release_address"},
		{&l.epCreate, "ucp_ep_create"}, {&l.epClose, "ucp_ep_close_nbx"}, {&l.tagSend, "ucp_tag_send_nbx"}, {&l.tagSendSync, "ucp_tag_send_sync_nbx"},
		{&l.tagProbe, "ucp_tag_probe_nb"}, {&l.tagReceive, "ucp_tag_msg_recv_nbx"}, {&l.requestStatus, "ucp_request_check_status"}, {&l.requestRelease, "ucp_request_free"},
		{&l.statusText, "ucs_status_string"},
	} {
		if *s.to, err = purego.Dlsym(ucp, s.name); err != nil {
			return nil, fmt.Errorf("%s is older than version %d.%d: %w", ucxLibraryName, ucxMajor, ucxMinor, err)
		}
	}
	return l, nil
})

func cString(s string) *byte { return unsafe.StringData(s + "\x00") }

// ucxStatus is a ucs_status_t, one byte wide.
type ucxStatus int8

const (
	ucxOK         ucxStatus = 0
	ucxInProgress ucxStatus = 1
	ucxBusy       ucxStatus = -15
	ucxLastError            = -100
)

// ucxError is a status as an error.
type ucxError struct {
	status ucxStatus
	what   string
}

func (e ucxError) Error() string {
	l, err := loadUCX()
	if err != nil {
		return fmt.Sprintf("%s: status %d", e.what, e.status)
	}
	var text strings.Builder
	at, _, _ := purego.SyscallN(l.statusText, uintptr(uint8(e.status)))
	for p := foreign(&at); *p != 0 && text.Len() < maxTextBytes; p = (*byte)(unsafe.Add(unsafe.Pointer(p), 1)) {
		text.WriteByte(*p)
	}
	return e.what + ": " + text.String()
}

// foreign is a pointer to memory of the library.
func foreign(at *uintptr) *byte { return *(**byte)(unsafe.Pointer(at)) }

// pointerStatus splits what functions return that may be done at once: nothing for
// that, a small negative number for a failure, else a request.
func pointerStatus(r uintptr) (request uintptr, s ucxStatus) {
	switch {
	case r == 0:
		return 0, ucxOK
	case int(r) < 0 && int(r) >= ucxLastError:
		return 0, ucxStatus(int8(r))
	}
	return r, ucxInProgress
}

// The parameters of calls, as far as they are used; what lies between is zero.
type (
	ucxParams struct { // ucp_params_t
		mask, features uint64
		_              [8]uint64
	}
	ucxWorkerParams struct { // ucp_worker_params_t
		mask   uint64
		thread uint32
		_      [188]byte
	}
	ucxEndpointParams struct { // ucp_ep_params_t
		mask      uint64
		address   *byte
		errorMode uint32
		_         uint32
		handler   uintptr
		argument  uintptr
		_         [8]uint64
	}
	ucxRequestParams struct { // ucp_request_param_t
		mask, flags uint32
		_           [8]uint64
	}
	ucxTagInfo struct{ tag, length uint64 } // ucp_tag_recv_info_t
)

const (
	ucxFieldFeatures      = 1 << 0
	ucxFeatureTag         = 1 << 0
	ucxFeatureWakeup      = 1 << 4
	ucxFieldThread        = 1 << 0
	ucxThreadSerialized   = 1
	ucxFieldAddress       = 1 << 0
	ucxFieldErrorMode     = 1 << 1
	ucxFieldHandler       = 1 << 2
	ucxErrorModePeer      = 1
	ucxFieldRequestFlags  = 1 << 4
	ucxCloseFlagForce     = 1
	ucxEventsDescriptorOf = 4
)

// ucxSettings are those of the library that this path rests on.
var ucxSettings = [...][2]string{
	{"RNDV_SCHEME", "get_zcopy"}, // nobody writes into memory but its own process
	{"RNDV_THRESH", fmt.Sprint(ucxLarge)},
	// Its own probes crash 1.13 when an endpoint is closed under one. The transports
	// tell of a peer that dies, and this package finds one that is silent.
	{"KEEPALIVE_INTERVAL", "inf"},
}

// newContext makes a ucp context and one worker of it.
func (l *ucxLibrary) newContext() (context, worker uintptr, err error) {
	var config uintptr
	if s := l.status(l.configRead, 0, 0, uintptr(unsafe.Pointer(&config))); s != ucxOK {
		return 0, 0, ucxError{s, "read the settings UCX_…"}
	}
	defer purego.SyscallN(l.configRelease, config)
	for _, v := range ucxSettings {
		name, value := cString(v[0]), cString(v[1])
		if s := l.status(l.configModify, config, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(value))); s != ucxOK {
			return 0, 0, ucxError{s, "set UCX_" + v[0]}
		}
	}
	params := &ucxParams{mask: ucxFieldFeatures, features: ucxFeatureTag | ucxFeatureWakeup}
	if s := l.status(l.initVersion, ucxMajor, ucxMinor, uintptr(unsafe.Pointer(params)), config, uintptr(unsafe.Pointer(&context))); s != ucxOK {
		return 0, 0, ucxError{s, "initialise"}
	}
	wp := &ucxWorkerParams{mask: ucxFieldThread, thread: ucxThreadSerialized}
	if s := l.status(l.workerCreate, context, uintptr(unsafe.Pointer(wp)), uintptr(unsafe.Pointer(&worker))); s != ucxOK {
		purego.SyscallN(l.cleanup, context)
		return 0, 0, ucxError{s, "make a worker"}
	}
	return context, worker, nil
}

func (l *ucxLibrary) freeContext(context, worker uintptr) {
	purego.SyscallN(l.workerDestroy, worker)
	purego.SyscallN(l.cleanup, context)
}

// status calls a function that returns one.
//
//go:uintptrescapes
func (l *ucxLibrary) status(f uintptr, args ...uintptr) ucxStatus {
	r, _, _ := purego.SyscallN(f, args...)
	return ucxStatus(int8(r))
}

// address is how others reach a worker.
func (l *ucxLibrary) address(worker uintptr) ([]byte, error) {
	var at uintptr
	var n uint64
	if s := l.status(l.workerAddress, worker, uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(&n))); s != ucxOK {
		return nil, ucxError{s, "ask for the worker's address"}
	}
	b := append([]byte(nil), unsafe.Slice(foreign(&at), int(n))...)
	purego.SyscallN(l.releaseAddress, worker, at)
	return b, nil
}

// events returns the descriptor that is readable when an armed worker has work.
func (l *ucxLibrary) events(worker uintptr) (int, error) {
	var fd int32
	if s := l.status(l.workerEvents, worker, uintptr(unsafe.Pointer(&fd))); s != ucxOK {
		return -1, ucxError{s, "ask for the worker's events"}
	}
	return int(fd), nil
}

// endpoint makes an endpoint to a worker's address; argument comes back in broken.
func (l *ucxLibrary) endpoint(worker uintptr, address []byte, argument uintptr) (ep uintptr, err error) {
	p := &ucxEndpointParams{mask: ucxFieldAddress | ucxFieldErrorMode | ucxFieldHandler, address: unsafe.SliceData(address), errorMode: ucxErrorModePeer, handler: l.broken, argument: argument}
	s := l.status(l.epCreate, worker, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&ep)))
	runtime.KeepAlive(address)
	if s != ucxOK {
		return 0, ucxError{s, "make an endpoint"}
	}
	return ep, nil
}
