package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/reach"
)

// The bounds of egress.
const (
	// MaxCredentials and MaxCredential bound what a connector is handed, the second
	// in bytes.
	MaxCredentials = 16
	MaxCredential  = 16 << 10
	// MaxAuthorities bounds the certificates, in bytes.
	MaxAuthorities = 1 << 20
	maxHandover    = 4 << 20
	// egressConnections and egressIdle are a connector's unless said otherwise.
	egressConnections = 16
	egressIdle        = 2 * time.Minute
	relayBuffer       = 64 << 10
	// answerTimeout is how long a plugin may leave answers lying.
	answerTimeout = 5 * time.Second
	// maxRefused ends the egress of a process that tries without end, and
	// maxRefusedLogged bounds the places that are named in the log.
	maxRefused       = 4096
	maxRefusedLogged = 16
)

// egressFd is the number under which a connector inherits its end of the socket by
// which it asks for connections.
const egressFd = 4

// Egress is what a connector may reach, and what it is handed for that.
type Egress struct {
	Allow reach.List
	// Credentials are handed over by their names.
	Credentials map[string][]byte
	// Authorities are certificates in PEM that the connector may trust.
	Authorities []byte
	// Connections is how many there may be at once; 16 when 0.
	Connections int
	// Idle is how long one may be silent; two minutes when 0.
	Idle time.Duration

	lookup func(context.Context, string) ([]netip.Addr, error)
}

// LogValue shows no credential.
func (e Egress) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("places", e.Allow.Len()), slog.Int("credentials", len(e.Credentials)))
}

// Validate reports what cannot be handed over.
func (e Egress) Validate() error {
	if len(e.Credentials) > MaxCredentials {
		return fmt.Errorf("%d credentials, at most %d", len(e.Credentials), MaxCredentials)
	}
	for name, c := range e.Credentials {
		if err := predicate.ValidateID(name); err != nil {
			return fmt.Errorf("credential: %w", err)
		}
		if len(c) == 0 || len(c) > MaxCredential {
			return fmt.Errorf("credential %s: %d bytes, want 1 to %d", name, len(c), MaxCredential)
		}
	}
	if len(e.Authorities) > MaxAuthorities {
		return fmt.Errorf("authorities: %d bytes, at most %d", len(e.Authorities), MaxAuthorities)
	}
	return nil
}

// egress is the host's end: it connects on behalf of a connector, and passes bytes on.
//
// A connector never gets the connection itself but a socket to this relay. With a
// connected TCP socket it would hold something of the host's network: it could be
// disconnected and connected anew (connect to AF_UNSPEC, TCP Fast Open's sendto after
// the far end has reset it), sent along another way (IP_OPTIONS with a source route),
// or listened on, and each of those would hang on one filter of system calls. A
// socket of this machine has no address to be bent, and what crosses it is counted
// and ends when it is silent.
type egress struct {
	cfg    Egress
	dialer reach.Dialer
	conn   *net.UnixConn
	log    *slog.Logger

	slots                   chan struct{}
	refused, sent, received atomic.Uint64
	answering               sync.Mutex
	// told are the places that the log has named, under answering.
	told   map[string]bool
	cancel context.CancelFunc
	done   chan struct{}
}

// newEgress begins to serve, and returns the plugin's end.
func newEgress(cfg Egress, log *slog.Logger) (_ *egress, theirs *os.File, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, fmt.Errorf("egress: %w", err)
	}
	if cfg.Connections == 0 {
		cfg.Connections = egressConnections
	}
	if cfg.Idle == 0 {
		cfg.Idle = egressIdle
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	conn, err := unixConn(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &egress{
		cfg: cfg, dialer: reach.Dialer{List: cfg.Allow, Lookup: cfg.lookup}, conn: conn, log: log,
		slots: make(chan struct{}, cfg.Connections), told: map[string]bool{}, cancel: cancel, done: make(chan struct{}),
	}
	if err := e.handOver(); err != nil {
		cancel()
		return nil, nil, errors.Join(err, conn.Close(), theirs.Close())
	}
	go e.run(ctx)
	return e, theirs, nil
}

// handOver leaves what the connector is given in its socket, in memory that nobody
// can change.
func (e *egress) handOver() (err error) {
	b, err := json.Marshal(handover{e.cfg.Connections, e.cfg.Authorities, e.cfg.Credentials})
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	fd, err := unix.MemfdCreate("cavra-handover", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "handover")
	defer func() { err = errors.Join(err, mem.Close()) }()
	if _, err = mem.Write(b); err == nil {
		_, err = unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err == nil {
		err = writeAnswer(e.conn, answer{file: mem})
	}
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	return nil
}

// run answers questions until the socket ends or is misused, and then ends what was
// connected.
func (e *egress) run(ctx context.Context) {
	defer close(e.done)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer e.cancel()
	defer e.end()
	for {
		id, address, err := readRequest(e.conn)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
				e.log.WarnContext(ctx, "a connector misuses its egress, which is over", slog.String("how", words(err.Error())))
			}
			return
		}
		if err := e.dialer.Check(address); err != nil {
			if e.refuse(ctx, id, err) != nil {
				return
			}
			continue
		}
		select {
		case e.slots <- struct{}{}:
		default:
			if e.answer(answer{id: id, code: answerBusy}) != nil {
				return
			}
			continue
		}
		wg.Go(func() {
			defer func() { <-e.slots }()
			e.connect(ctx, id, address)
		})
	}
}

// refuse counts, says it once, and answers. An error ends the egress.
func (e *egress) refuse(ctx context.Context, id uint64, why error) error {
	n := e.refused.Add(1)
	var r *reach.RefusedError
	if errors.As(why, &r) {
		e.answering.Lock()
		first := !e.told[r.Address] && len(e.told) < maxRefusedLogged
		if first {
			e.told[r.Address] = true
		}
		e.answering.Unlock()
		if first {
			e.log.WarnContext(ctx, "a connector tried what its scope does not allow", slog.String("place", r.Address), slog.String("why", r.Why))
		}
	}
	if n >= maxRefused {
		e.log.WarnContext(ctx, "a connector tried too often what its scope does not allow: its egress is over", slog.Uint64("times", n))
		return why
	}
	return e.answer(answer{id: id, code: answerRefused, text: why.Error()})
}

func (e *egress) answer(a answer) error {
	e.answering.Lock()
	defer e.answering.Unlock()
	if err := e.conn.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	return writeAnswer(e.conn, a)
}

// connect makes one connection and passes on what crosses it until it ends.
func (e *egress) connect(ctx context.Context, id uint64, address string) {
	far, err := e.dialer.Dial(ctx, address)
	var refused *reach.RefusedError
	switch {
	case errors.As(err, &refused):
		if e.refuse(ctx, id, err) != nil {
			e.end()
		}
		return
	case err != nil:
		if e.answer(answer{id: id, code: answerFailed, text: err.Error()}) != nil {
			e.end()
		}
		return
	}
	defer func() { _ = far.Close() }()
	near, err := e.give(id)
	if err != nil {
		e.log.WarnContext(ctx, "a connection cannot be given to a connector", slog.Any("error", err))
		e.end()
		return
	}
	defer func() { _ = near.Close() }()
	e.relay(ctx, near, far)
}

// end makes run return, and tells the connector that nothing is answered any more.
func (e *egress) end() { _ = e.conn.Close() }

// give hands the plugin one end of a new socket, and returns the other.
func (e *egress) give(id uint64) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "relay")
	ours, err := unixConn(os.NewFile(uintptr(fds[0]), "relay"))
	if err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	if err := errors.Join(e.answer(answer{id: id, file: theirs}), theirs.Close()); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return ours, nil
}

// relay passes bytes on in both directions, until both have ended, one fails, or
// neither has said anything for too long.
func (e *egress) relay(ctx context.Context, near, far net.Conn) {
	stop := context.AfterFunc(ctx, func() { _, _ = near.Close(), far.Close() })
	defer stop()
	r := relay{idle: e.cfg.Idle}
	r.heard()
	var wg sync.WaitGroup
	for _, way := range []struct {
		to, from net.Conn
		count    *atomic.Uint64
	}{{far, near, &e.sent}, {near, far, &e.received}} {
		wg.Go(func() {
			if r.pass(way.to, way.from, way.count) != nil {
				_, _ = near.Close(), far.Close()
			}
		})
	}
	wg.Wait()
}

// relay is what the two directions of one connection share.
type relay struct {
	idle time.Duration
	last atomic.Int64
}

func (r *relay) heard() { r.last.Store(time.Now().UnixNano()) }

func (r *relay) silent() bool { return time.Since(time.Unix(0, r.last.Load())) >= r.idle }

// pass ends with nil when from has no more to say, which to is told.
func (r *relay) pass(to, from net.Conn, count *atomic.Uint64) error {
	buffer := make([]byte, relayBuffer)
	for {
		if err := from.SetReadDeadline(time.Now().Add(r.idle)); err != nil {
			return err
		}
		n, err := from.Read(buffer)
		if n > 0 {
			r.heard()
			count.Add(uint64(n)) //nolint:gosec // not negative
			if err := to.SetWriteDeadline(time.Now().Add(r.idle)); err != nil {
				return err
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
			r.heard()
		}
		switch {
		case errors.Is(err, io.EOF):
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				return half.CloseWrite()
			}
			return err
		case errors.Is(err, os.ErrDeadlineExceeded) && !r.silent():
		case err != nil:
			return err
		}
	}
}

// close ends every connection.
func (e *egress) close() error {
	err := e.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	<-e.done
	return err
}
