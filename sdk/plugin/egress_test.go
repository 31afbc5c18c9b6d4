package plugin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/reach"
)

// remote does what its root says, and tells what came of it as an error.
type remote struct {
	testConnector
	access connector.Access
	// asks is the socket by which it asks its host, if it was given one.
	asks *net.UnixConn

	mu   sync.Mutex
	held []net.Conn
}

// serveRemote is ServeRemoteConnector with the socket laid open.
func serveRemote() error {
	r := &remote{}
	if f := inherited(egressFd, "egress"); f != nil {
		access, d, err := newAccess(f)
		if err != nil {
			return err
		}
		r.access, r.asks = access, d.conn
	}
	return ServeConnector(r)
}

func (r *remote) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		said, err := r.obey(ctx, root)
		if err == nil {
			err = errors.New("came of it: " + said)
		}
		yield(artifact.Item{}, err)
	}
}

func (r *remote) obey(ctx context.Context, root string) (string, error) {
	what, of, _ := strings.Cut(root, " ")
	switch what {
	case "credential":
		return r.access.Credential(of)
	case "echo":
		c, err := r.access.DialContext(ctx, "tcp", of)
		if err != nil {
			return "", err
		}
		defer c.Close()
		return echo(c, "hello")
	case "drain":
		c, err := r.access.DialContext(ctx, "tcp", of)
		if err != nil {
			return "", err
		}
		defer c.Close()
		n, err := io.Copy(io.Discard, c)
		return strconv.FormatInt(n, 10), err
	case "hold":
		c, err := r.access.DialContext(ctx, "tcp", of)
		if err != nil {
			return "", err
		}
		r.mu.Lock()
		r.held = append(r.held, c)
		r.mu.Unlock()
		return "held", nil
	case "wait": // for the first one that is held to end
		_, err := r.held[0].Read(make([]byte, 1))
		return "", err
	case "release":
		for _, c := range r.held {
			_ = c.Close()
		}
		return "", nil
	case "open":
		_, err := unix.Open(of, unix.O_RDONLY, 0)
		return "", err
	case "environment":
		return strings.Join(append(os.Environ(), os.Args...), " "), nil
	case "descriptors":
		return memories(), nil
	case "elsewhere":
		return r.elsewhere(ctx, of)
	case "misuse":
		return "", r.misuse(of)
	}
	_, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	return "", err
}

func echo(c net.Conn, text string) (string, error) {
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return "", err
		}
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// memories says which descriptors are memory that could be read once more.
func memories() string {
	var out []string
	for fd := range 64 {
		// Only a memory file knows seals, and of the others only what is executed here.
		if n, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err == nil {
			out = append(out, fmt.Sprintf("%d:%x", fd, n))
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			out = append(out, fmt.Sprintf("%d of %d bytes", fd, st.Size))
		}
	}
	return strings.Join(out, " ")
}

// elsewhere tries to make a connection that was given one to another place.
func (r *remote) elsewhere(ctx context.Context, of string) (string, error) {
	how, address, _ := strings.Cut(of, " ")
	c, err := r.access.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", fmt.Errorf("no connection: %w", err)
	}
	defer c.Close()
	raw, err := c.(*relayed).SyscallConn()
	if err != nil {
		return "", err
	}
	other := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 1}}
	cerr := raw.Control(func(fd uintptr) {
		s := int(fd)
		switch how {
		case "connect":
			err = unix.Connect(s, other)
		case "disconnect":
			err = trap(unix.SYS_CONNECT, fd, 0, 0)
		case "sendto":
			err = unix.Sendto(s, []byte("x"), 0, other)
		case "fastopen":
			err = unix.Sendto(s, []byte("x"), unix.MSG_FASTOPEN, other)
		case "options":
			err = unix.SetsockoptString(s, unix.IPPROTO_IP, unix.IP_OPTIONS, "\x83\x07\x04\xc0\x00\x02\x01\x00")
		case "listen":
			err = unix.Listen(s, 1)
		}
	})
	return "", errors.Join(err, cerr)
}

// misuse says to the host what no author's code could.
func (r *remote) misuse(how string) error {
	var err error
	switch how {
	case "short":
		_, err = r.asks.Write([]byte("short"))
	case "long":
		_, err = r.asks.Write(bytes.Repeat([]byte("x"), 4096))
	case "descriptors":
		_, _, err = r.asks.WriteMsgUnix(append(make([]byte, 8), "127.0.0.1:1"...), unix.UnixRights(0, 1, 2), nil)
	case "flood":
		for i := range uint64(100_000) {
			if _, err = r.asks.Write(append(binary.BigEndian.AppendUint64(nil, 1<<40+i), "192.0.2.1:80"...)); err != nil {
				break
			}
		}
	}
	return err
}

// remoteHost is a host with a connector that reaches what entries say.
type remoteHost struct {
	*Connector
	t   testing.TB
	log *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRemote(t testing.TB, e Egress, entries ...string) remoteHost {
	t.Helper()
	var err error
	if e.Allow, err = reach.Parse(entries); err != nil {
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	p, err := Launch(t.Context(), Config{
		Path: self(t), Sandbox: SandboxRequire, Egress: &e, Logger: slog.New(slog.NewTextHandler(log, nil)), args: []string{"remote"},
	})
	if errors.Is(err, ErrSandbox) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := p.Connector(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return remoteHost{c, t, log}
}

func (r remoteHost) does(root string) error {
	r.t.Helper()
	return r.doesWithin(20*time.Second, root)
}

func (r remoteHost) doesWithin(limit time.Duration, root string) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	for _, err := range r.List(ctx, root) {
		return err
	}
	return nil
}

// echoServer sends back what it gets, and returns its address.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

// TestEgressOfAHostileConnector has a connector try every way to another place than
// those that it is given.
func TestEgressOfAHostileConnector(t *testing.T) {
	server := echoServer(t)
	_, port, _ := net.SplitHostPort(server)
	other := echoServer(t)
	dir := hostileFolder(t)
	names := map[string]string{"loop.example": "127.0.0.1", "meta.example": "169.254.169.254"}
	egress := Egress{
		Connections: 2, Credentials: map[string][]byte{"token": []byte("its own\n")},
		lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			a, err := netip.ParseAddr(names[host])
			return []netip.Addr{a}, err
		},
	}
	const list, filter, files, relay = "host: list", "seccomp", "landlock", "host: relay, no TCP socket"
	rows := []row{}
	try := func(h remoteHost, attempt, root, says, by string) {
		t.Helper()
		err := h.does(root)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", attempt, err, says)
		}
		rows = append(rows, row{attempt, says, by})
	}
	h := newRemote(t, egress, server, "loop.example:80", "meta.example:80")
	try(h, "its registry", "echo "+server, "came of it: hello", "(allowed)")
	try(h, "its credential", "credential token", "came of it: its own", "(allowed)")
	refused := h.Refused()
	if refused != 0 {
		t.Errorf("%d refused of what is allowed", refused)
	}
	for _, a := range [][2]string{
		{"another port of the same host", "echo " + other}, {"another host", "echo 192.0.2.1:" + port},
		{"the cloud's metadata", "echo 169.254.169.254:80"}, {"another spelling of an address", "echo 2130706433:" + port},
		{"a name that is not listed", "echo secret.in.a.name.example:443"},
	} {
		try(h, a[0], a[1], "may not be reached", list)
	}
	try(h, "a listed name that leads to this machine", "echo loop.example:80", "resolves to 127.0.0.1", "host: resolved address")
	try(h, "a listed name that leads to the metadata", "echo meta.example:80", "resolves to 169.254.169.254", "host: resolved address")
	if got := h.Refused(); got != 7 {
		t.Errorf("%d attempts were counted, want 7", got)
	}
	if got := strings.Count(h.log.String(), "a connector tried"); got != 7 {
		t.Errorf("%d attempts are in the log:\n%s", got, h.log)
	}
	_ = h.does("echo " + other)
	if got := strings.Count(h.log.String(), "place="+other); got != 1 {
		t.Errorf("an attempt that was repeated is in the log %d times", got)
	}
	for _, how := range [][2]string{{"connect", "operation not permitted"}, {"disconnect", "operation not permitted"}, {"listen", "operation not permitted"}} {
		try(h, "the given socket, elsewhere by "+how[0], "elsewhere "+how[0]+" "+server, how[1], filter)
	}
	for _, how := range [][2]string{{"sendto", "already connected"}, {"fastopen", "already connected"}, {"options", "not supported"}} {
		try(h, "the given socket, elsewhere by "+how[0], "elsewhere "+how[0]+" "+server, how[1], relay)
	}
	try(h, "a raw socket", "raw", "operation not permitted", filter)
	try(h, "the agent's key", "open "+dir+"/key", "permission denied", files)
	try(h, "the agent's spool", "open "+dir, "permission denied", files)
	try(h, "a credential of another name", "credential other", "no credential", "host: not handed over")
	if err := h.does("environment"); strings.Contains(err.Error(), "its own") {
		t.Errorf("the credential is in the environment or the arguments: %v", err)
	}
	if err := h.does("descriptors"); err == nil || err.Error() != `list: plugin failed: "came of it: "` {
		t.Errorf("what was handed over can be read again: %v", err)
	}
	for range 2 {
		try(h, "as many connections as are given", "hold "+server, "came of it: held", "(allowed)")
	}
	if err := h.doesWithin(300*time.Millisecond, "hold "+server); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("a third connection: %v", err)
	}
	rows = append(rows, row{"more connections", "waits", "host: bound"})
	_ = h.does("release")
	try(h, "one more when they are closed", "echo "+server, "came of it: hello", "(allowed)")
	for _, how := range []string{"short", "long", "descriptors", "flood"} {
		h := newRemote(t, egress, server)
		_ = h.does("misuse " + how)
		try(h, "misused questions: "+how, "echo "+server, "ask for a connection", "host: egress ended")
		if how == "flood" && h.Refused() != maxRefused {
			t.Errorf("the flood was refused %d times", h.Refused())
		}
	}
	table(t, rows)
}

// TestEgressEndsWhatIsSilent lets a connection fall silent, and ends another host's
// with its process.
func TestEgressEndsWhatIsSilent(t *testing.T) {
	server := echoServer(t)
	h := newRemote(t, Egress{Idle: time.Second}, server)
	if err := h.does("hold " + server); err == nil || !strings.Contains(err.Error(), "held") {
		t.Fatal(err)
	}
	if err := h.does("wait"); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("a silent connection: %v", err)
	}
	if err := h.does("echo " + server); err == nil || !strings.Contains(err.Error(), "hello") {
		t.Errorf("another one: %v", err)
	}
	if sent, received := h.process.egress.sent.Load(), h.process.egress.received.Load(); sent != 5 || received != 5 {
		t.Errorf("%d bytes sent and %d received were counted", sent, received)
	}
}

// BenchmarkEgress fetches by way of the host, as fast as it goes.
func BenchmarkEgress(b *testing.B) {
	const size = 256 << 20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		block := make([]byte, 1<<20)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for n := 0; n < size && err == nil; n += len(block) {
				_, err = c.Write(block)
			}
			_ = c.Close()
		}
	})
	defer serving.Wait()
	defer l.Close()
	h := newRemote(b, Egress{}, l.Addr().String())
	b.SetBytes(size)
	for b.Loop() {
		if err := h.does("drain " + l.Addr().String()); err == nil || !strings.Contains(err.Error(), strconv.Itoa(size)) {
			b.Fatal(err)
		}
	}
}

// TestNoEgress serves a connector that is given nothing, as one that is looked at.
func TestNoEgress(t *testing.T) {
	c := launchConnector(t, "remote")
	err := last(t, c, "echo 127.0.0.1:80")
	if err == nil || !strings.Contains(err.Error(), connector.ErrUnreachable.Error()) || c.Refused() != 0 {
		t.Errorf("%v, %d refused", err, c.Refused())
	}
}

func TestEgressRefusesWhatItCannotHandOver(t *testing.T) {
	many := map[string][]byte{}
	for i := range MaxCredentials + 1 {
		many["c"+strconv.Itoa(i)] = []byte("x")
	}
	for name, e := range map[string]Egress{
		"many":  {Credentials: many},
		"large": {Credentials: map[string][]byte{"a": make([]byte, MaxCredential+1)}},
		"empty": {Credentials: map[string][]byte{"a": nil}},
		"name":  {Credentials: map[string][]byte{"A name": []byte("x")}},
		"roots": {Authorities: make([]byte, MaxAuthorities+1)},
	} {
		if p, err := Launch(t.Context(), Config{Path: self(t), Egress: &e, args: []string{"remote"}}); err == nil {
			t.Errorf("%s: launched, %v", name, p.Close())
		}
	}
	secret := Egress{Credentials: map[string][]byte{"a": []byte("hidden")}}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", slog.Any("egress", secret))
	if strings.Contains(b.String(), "hidden") {
		t.Error(b.String())
	}
}

// FuzzEgressQuestion holds what a plugin asks to its bounds.
func FuzzEgressQuestion(f *testing.F) {
	f.Add([]byte("12345678a.example:443"))
	f.Add([]byte("1234567"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, address, err := parseRequest(b)
		if err == nil && (address == "" || len(address) > reach.MaxAddress) {
			t.Errorf("%q", address)
		}
		_ = reach.Dialer{}.Check(address)
	})
}

// row is a line of what was tried.
type row struct{ attempt, outcome, by string }

// table prints what was tried.
func table(t *testing.T, rows []row) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%d attempts\n%-48s  %-34s  %s\n", len(rows), "attempt", "outcome", "stopped by")
	for _, r := range rows {
		fmt.Fprintf(&b, "%-48s  %-34s  %s\n", r.attempt, r.outcome, r.by)
	}
	t.Log(t.Name() + ": " + b.String())
}
