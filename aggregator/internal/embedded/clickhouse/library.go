package clickhouse

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// library is libchdb.so in this process, with the functions that are used of
// its C interface. An engine can be connected to one data folder per process.
type library struct {
	connect         func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	closeConnection func(unsafe.Pointer)
	query           func(conn, text unsafe.Pointer, textLen uintptr, format unsafe.Pointer, formatLen uintptr,
		names, nameLens, values, valueLens unsafe.Pointer, params uintptr) unsafe.Pointer
	resultBuffer  func(unsafe.Pointer) unsafe.Pointer
	resultLength  func(unsafe.Pointer) uintptr
	resultError   func(unsafe.Pointer) unsafe.Pointer
	destroyResult func(unsafe.Pointer)
	setSignals    func(enabled int32)
}

// checkLibrary says whether path is a library this program can load, before
// the dynamic linker answers with less.
func checkLibrary(path string) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("load engine library: %w: the embedded engine needs linux/amd64 and this is %s/%s; use a ClickHouse cluster instead",
			ErrLibrary, runtime.GOOS, runtime.GOARCH)
	}
	file, err := elf.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("load engine library: %w: %s is missing: run `make engine`, or set the library's path to a libchdb.so", ErrLibrary, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("load engine library: %w: %s is not readable by this user: change its permissions", ErrLibrary, path)
	case err != nil:
		return fmt.Errorf("load engine library: %w: %s is not a shared library (%w): remove it and run `make engine`", ErrLibrary, path, err)
	}
	machine, class := file.Machine, file.Class
	if err := file.Close(); err != nil {
		return fmt.Errorf("close engine library: %w", err)
	}
	if machine != elf.EM_X86_64 || class != elf.ELFCLASS64 {
		return fmt.Errorf("load engine library: %w: %s is built for %s and this program for %s: run `make engine` on this machine",
			ErrLibrary, path, strings.ToLower(strings.TrimPrefix(machine.String(), "EM_")), runtime.GOARCH)
	}
	return nil
}

func openLibrary(path string) (*library, error) {
	if err := checkLibrary(path); err != nil {
		return nil, err
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load engine library: %w: %w: remove it and run `make engine`", ErrLibrary, err)
	}
	lib := &library{}
	for name, function := range map[string]any{
		"chdb_connect":                     &lib.connect,
		"chdb_close_conn":                  &lib.closeConnection,
		"chdb_query_with_params_n":         &lib.query,
		"chdb_result_buffer":               &lib.resultBuffer,
		"chdb_result_length":               &lib.resultLength,
		"chdb_result_error":                &lib.resultError,
		"chdb_destroy_query_result":        &lib.destroyResult,
		"chdb_set_signal_handlers_enabled": &lib.setSignals,
	} {
		symbol, err := purego.Dlsym(handle, name)
		if err != nil {
			return nil, fmt.Errorf("load engine library: %w: %s has no %s: it is not the pinned version, run `make engine`", ErrLibrary, path, name)
		}
		purego.RegisterFunc(function, symbol)
	}
	return lib, nil
}

// deadlySignals are the ones whose handlers the engine replaces.
var deadlySignals = [...]unix.Signal{
	unix.SIGABRT, unix.SIGSEGV, unix.SIGILL, unix.SIGBUS, unix.SIGSYS, unix.SIGFPE, unix.SIGTSTP, unix.SIGTRAP,
}

// kernelAction holds the kernel's struct sigaction, 32 bytes on amd64.
type kernelAction [32]byte

// sigaction swaps a handler without interpreting it. The size of the signal
// mask is 8 bytes on every Linux.
func sigaction(sig unix.Signal, set, get *kernelAction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), 8, 0, 0)
	if errno != 0 {
		return fmt.Errorf("set handler of %s: %w", unix.SignalName(sig), errno)
	}
	return nil
}

// boot starts the engine over the data folder that args name and keeps Go's
// signal handlers. Left alone, the engine installs its own, under which a Go
// nil dereference hangs; told not to, it resets these signals to the default
// action, under which one dies without a word. So Go's are put back.
func (l *library) boot(args ...string) (conn *connection, err error) {
	var saved [len(deadlySignals)]kernelAction
	for i, sig := range deadlySignals {
		if err := sigaction(sig, nil, &saved[i]); err != nil {
			return nil, err
		}
	}
	l.setSignals(0)
	conn, err = l.open(args...)
	for i, sig := range deadlySignals {
		err = errors.Join(err, sigaction(sig, &saved[i], nil))
	}
	return conn, err
}

// open makes a connection: a session of its own, whose settings no other
// connection sees. It takes 0.3 ms, against 1 ms for the smallest query.
func (l *library) open(args ...string) (*connection, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	argv := make([]unsafe.Pointer, len(args)+1)
	for i, arg := range args {
		text := append([]byte(arg), 0)
		pin.Pin(&text[0])
		argv[i] = unsafe.Pointer(&text[0])
	}
	pin.Pin(&argv[0])
	conn := l.connect(int32(len(args)), unsafe.Pointer(&argv[0]))
	if conn == nil {
		return nil, errors.New("connect engine: the engine refused the data folder; its own message is on standard error")
	}
	return &connection{lib: l, handle: conn}, nil
}

// connection is a session of the engine. It runs one statement at a time.
type connection struct {
	lib    *library
	handle unsafe.Pointer
}

func (c *connection) close() {
	c.lib.closeConnection(c.handle)
}

// exec runs a statement for its effect.
func (c *connection) exec(text string) error {
	res, err := c.run(text, "Null", nil)
	if err != nil {
		return err
	}
	res.close()
	return nil
}

// text returns a statement's single value.
func (c *connection) text(text string) (string, error) {
	res, err := c.run(text, "TSVRaw", nil)
	if err != nil {
		return "", err
	}
	defer res.close()
	return strings.TrimSuffix(string(res.data), "\n"), nil
}

// param is a value for a {name:Type} placeholder.
type param struct{ name, value string }

// result is the engine's answer. Its bytes belong to the engine until close.
type result struct {
	lib    *library
	handle unsafe.Pointer
	data   []byte
}

func (r *result) close() {
	r.lib.destroyResult(r.handle)
	r.handle, r.data = nil, nil
}

// run executes one statement and asks for its rows in format.
// An error is an *Exception.
func (c *connection) run(text, format string, params []param) (*result, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	str := func(s string) (unsafe.Pointer, uintptr) {
		// One byte more, so that an empty string has an address.
		b := append([]byte(s), 0)
		pin.Pin(&b[0])
		return unsafe.Pointer(&b[0]), uintptr(len(s))
	}
	var vectors [4]unsafe.Pointer
	if n := len(params); n > 0 {
		names, values := make([]unsafe.Pointer, n), make([]unsafe.Pointer, n)
		nameLens, valueLens := make([]uintptr, n), make([]uintptr, n)
		for i, p := range params {
			names[i], nameLens[i] = str(p.name)
			values[i], valueLens[i] = str(p.value)
		}
		pin.Pin(&names[0])
		pin.Pin(&nameLens[0])
		pin.Pin(&values[0])
		pin.Pin(&valueLens[0])
		vectors = [4]unsafe.Pointer{
			unsafe.Pointer(&names[0]), unsafe.Pointer(&nameLens[0]),
			unsafe.Pointer(&values[0]), unsafe.Pointer(&valueLens[0]),
		}
	}
	q, qLen := str(text)
	f, fLen := str(format)
	// chdb_connect returns a pointer to the handle that queries take.
	handle := c.lib.query(*(*unsafe.Pointer)(c.handle), q, qLen, f, fLen,
		vectors[0], vectors[1], vectors[2], vectors[3], uintptr(len(params)))
	if handle == nil {
		return nil, &Exception{Message: "the engine returned no result"}
	}
	if message := c.lib.resultError(handle); message != nil {
		err := parseException(goString(message))
		c.lib.destroyResult(handle)
		return nil, err
	}
	r := &result{lib: c.lib, handle: handle}
	if buffer, n := c.lib.resultBuffer(handle), c.lib.resultLength(handle); buffer != nil && n > 0 && n < math.MaxInt {
		r.data = unsafe.Slice((*byte)(buffer), n)
	}
	return r, nil
}

// maxMessage bounds the engine's error text, in bytes.
const maxMessage = 16 << 10

func goString(p unsafe.Pointer) string {
	n := 0
	for n < maxMessage && *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}
