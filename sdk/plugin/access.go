package plugin

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/safeio"
)

// busyWait is between two questions for a connection when all are in use, and
// busyTimeout ends the asking.
const (
	busyWait    = 20 * time.Millisecond
	busyTimeout = 30 * time.Second
)

// handover is what a connector is given once, before it is asked anything.
type handover struct {
	Connections int               `json:"connections"`
	Authorities []byte            `json:"authorities"`
	Credentials map[string][]byte `json:"credentials"`
}

// dialer is the plugin's end of the egress socket: it asks its host for
// connections.
type dialer struct {
	conn *net.UnixConn

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan answer
	err     error
	done    chan struct{}
}

// newAccess takes the egress socket over, and what is handed over on it.
func newAccess(f *os.File) (connector.Access, *dialer, error) {
	conn, err := unixConn(f)
	if err != nil {
		return connector.Access{}, nil, err
	}
	given, err := receiveHandover(conn)
	if err != nil {
		return connector.Access{}, nil, errors.Join(fmt.Errorf("take over access: %w", err), conn.Close())
	}
	d := &dialer{conn: conn, waiting: map[uint64]chan answer{}, done: make(chan struct{})}
	go d.receive()
	access := connector.Access{Dial: d.dial, Connections: given.Connections, Authorities: x509.NewCertPool(), Credentials: map[string]string{}}
	access.Authorities.AppendCertsFromPEM(given.Authorities)
	for name, c := range given.Credentials {
		access.Credentials[name] = string(c)
	}
	return access, d, nil
}

// receiveHandover reads the first message, once: nothing of it stays open.
func receiveHandover(conn *net.UnixConn) (h handover, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return h, err
	}
	a, err := readAnswer(conn)
	if err != nil {
		return h, err
	}
	if a.file == nil || a.id != 0 || a.code != answerGiven {
		return h, errors.New("the host hands nothing over")
	}
	file, err := safeio.NewFile(a.file, "handover")
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, file.Close(), conn.SetReadDeadline(time.Time{})) }()
	if file.Size() > maxHandover {
		return h, fmt.Errorf("%d bytes, at most %d", file.Size(), maxHandover)
	}
	b, err := io.ReadAll(io.NewSectionReader(file, 0, file.Size()))
	if err != nil {
		return h, err
	}
	return h, json.Unmarshal(b, &h)
}

// dial asks the host, and asks again for a while when all connections are in use.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: place(address), Err: err}
	}
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return fail(net.UnknownNetworkError(network))
	}
	tick := time.NewTicker(busyWait)
	defer tick.Stop()
	for patience := time.Now().Add(busyTimeout); ; {
		a, err := d.ask(ctx, address)
		if err != nil {
			return fail(err)
		}
		switch a.code {
		case answerGiven:
			conn, err := unixConn(a.file)
			if err != nil {
				return fail(err)
			}
			return &relayed{conn, place(address)}, nil
		case answerRefused:
			return fail(fmt.Errorf("%w: %s", connector.ErrUnreachable, a.text))
		case answerBusy:
			if time.Now().After(patience) {
				return fail(errors.New("all connections that the host gives are in use"))
			}
		default:
			return fail(errors.New(a.text))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fail(context.Cause(ctx))
		}
	}
}

func (d *dialer) ask(ctx context.Context, address string) (answer, error) {
	w := make(chan answer, 1)
	d.mu.Lock()
	if d.err != nil {
		d.mu.Unlock()
		return answer{}, d.err
	}
	d.last++
	id := d.last
	d.waiting[id] = w
	d.mu.Unlock()
	if err := writeRequest(d.conn, id, address); err != nil {
		d.drop(id, w)
		return answer{}, fmt.Errorf("ask for a connection: %w", err)
	}
	select {
	case a := <-w:
		return a, nil
	case <-d.done:
		d.mu.Lock()
		defer d.mu.Unlock()
		return answer{}, d.err
	case <-ctx.Done():
		d.drop(id, w)
		return answer{}, context.Cause(ctx)
	}
}

// drop stops waiting for an answer, and closes the connection that came with it
// meanwhile.
func (d *dialer) drop(id uint64, w chan answer) {
	d.mu.Lock()
	delete(d.waiting, id)
	d.mu.Unlock()
	select {
	case a := <-w:
		a.close()
	default:
	}
}

func (d *dialer) receive() {
	defer close(d.done)
	for {
		a, err := readAnswer(d.conn)
		d.mu.Lock()
		if err != nil {
			d.err = fmt.Errorf("ask for a connection: %w", err)
			d.mu.Unlock()
			return
		}
		w := d.waiting[a.id]
		delete(d.waiting, a.id)
		if w == nil {
			a.close() // nobody waits any more
		} else {
			w <- a
		}
		d.mu.Unlock()
	}
}

func (d *dialer) close() error {
	err := d.conn.Close()
	<-d.done
	return err
}

// place is the far end of a connection, as it was asked for.
type place string

func (place) Network() string { return "tcp" }

func (p place) String() string { return string(p) }

// relayed is a connection that the host made: one end of a socket to the host,
// which passes on what is written.
type relayed struct {
	*net.UnixConn
	remote place
}

// RemoteAddr is the place that was asked for.
func (r *relayed) RemoteAddr() net.Addr { return r.remote }

// unixConn takes f over.
func unixConn(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
		return nil, fmt.Errorf("open socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("open socket: it is a %T", c), c.Close())
	}
	return conn, nil
}

// inherited returns the socket of whole messages under a number, or nil when there
// is none.
func inherited(fd int, name string) *os.File {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return nil
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}
