package kafka

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// guard stands between the network and kfake, which allocates whatever size a
// frame announces and ends the process on a request it does not know. It lets
// through frames of known requests within their size, from connections that have
// begun to authenticate within a time, on a bounded number of connections.
type guard struct {
	maxConns int
	maxFrame int
	// loginTime is how long a connection may take to log in.
	loginTime time.Duration
	log       *slog.Logger
	// open is closed when connections may come in: kfake accepts them before
	// its caller can have set up the checks of produce.go.
	open chan struct{}

	mu    sync.Mutex
	conns int
}

const (
	// frameSlack is what a produce request needs besides its records.
	frameSlack = 64 << 10
	// loginFrame bounds the requests that come before a login.
	loginFrame = 16 << 10
	// frameHead is the size, the request's kind, its version and its
	// correlation number.
	frameHead = 12
	// minFrame is what follows the size in the shortest request.
	minFrame = frameHead - 4
)

// Requests by their key in the protocol.
// Source: https://kafka.apache.org/protocol#protocol_api_keys
const (
	keySaslHandshake    = 17
	keyAPIVersions      = 18
	keySaslAuthenticate = 36
)

// loginKeys are the requests that come before a login is done.
var loginKeys = []int16{keySaslHandshake, keyAPIVersions, keySaslAuthenticate}

// admitted are the requests that agents, aggregators and their administration
// make. Transactions, idempotent producers, quotas, share groups and
// reassignments are not among them: each keeps state here that nobody bounds.
// Neither are DeleteRecords and DeleteTopics, by which offsets could start over.
var admitted = []int16{
	0, 1, 2, 3, // Produce, Fetch, ListOffsets, Metadata
	8, 9, 10, // OffsetCommit, OffsetFetch, FindCoordinator
	11, 12, 13, 14, 15, 16, // JoinGroup, Heartbeat, LeaveGroup, SyncGroup, DescribeGroups, ListGroups
	keySaslHandshake, keyAPIVersions,
	19,             // CreateTopics
	29, 30, 31, 32, // DescribeAcls, CreateAcls, DeleteAcls, DescribeConfigs
	keySaslAuthenticate, 37, 44, // CreatePartitions, IncrementalAlterConfigs
	50, 51, 60, // DescribeUserScramCredentials, AlterUserScramCredentials, DescribeCluster
}

var (
	errFrameSize  = errors.New("frame size outside of its bounds")
	errRequest    = errors.New("request is not served here")
	errBeforeAuth = errors.New("request before authentication")
)

func (g *guard) wrap(ln net.Listener) net.Listener {
	return &guardedListener{Listener: ln, guard: g, closed: make(chan struct{})}
}

type guardedListener struct {
	net.Listener
	guard  *guard
	once   sync.Once
	closed chan struct{}
}

func (l *guardedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Accept closes connections beyond the limit at once, so that those within it
// are still served.
func (l *guardedListener) Accept() (net.Conn, error) {
	select {
	case <-l.guard.open:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.guard.enter() {
			if err := conn.SetReadDeadline(time.Now().Add(l.guard.loginTime)); err != nil {
				l.guard.log.Debug("no time set for a login", slog.Any("error", err))
			}
			return &guardedConn{Conn: conn, guard: l.guard}, nil
		}
		l.guard.log.Warn("embedded kafka refused a connection", slog.Int("limit", l.guard.maxConns))
		if err := conn.Close(); err != nil {
			l.guard.log.Debug("refused connection not closed", slog.Any("error", err))
		}
	}
}

func (g *guard) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns >= g.maxConns {
		return false
	}
	g.conns++
	return true
}

func (g *guard) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns--
}

// check decides on a frame by its head. authenticating says whether the
// connection has sent a SASL exchange; whether it succeeded is kfake's to know.
func (g *guard) check(head [frameHead]byte, authenticating bool) error {
	size := int64(int32(binary.BigEndian.Uint32(head[:])))
	key := int16(binary.BigEndian.Uint16(head[4:]))
	version := int16(binary.BigEndian.Uint16(head[6:]))
	limit := int64(g.maxFrame)
	switch {
	case slices.Contains(loginKeys, key):
		limit = loginFrame
	case !slices.Contains(admitted, key):
		return errRequest
	case !authenticating:
		return errBeforeAuth
	}
	if version < 0 {
		return errRequest
	}
	if size < minFrame || size > limit {
		return errFrameSize
	}
	return nil
}

// guardedConn checks each frame's head before it hands on its first byte. Reads
// come from one goroutine at a time, as kfake does it.
type guardedConn struct {
	net.Conn
	guard *guard
	once  sync.Once

	mu    sync.Mutex
	login []byte // what to answer if the login is refused; nil when none is pending

	head           [frameHead]byte
	headLeft       int   // bytes of the checked head that are not handed on yet
	bodyLeft       int64 // bytes of the frame after the head
	authenticating bool
	// loggedIn says that the peer went on after its login, so that it may be
	// idle for as long as it likes. Whether the login was good is kfake's to
	// know: it ends a connection whose login was not.
	loggedIn bool
}

func (c *guardedConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.headLeft == 0 && c.bodyLeft == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if c.headLeft > 0 {
		n := copy(p, c.head[frameHead-c.headLeft:])
		c.headLeft -= n
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.bodyLeft)])
	c.bodyLeft -= int64(n)
	return n, err
}

func (c *guardedConn) next() error {
	if _, err := io.ReadFull(c.Conn, c.head[:]); err != nil {
		return err
	}
	if err := c.guard.check(c.head, c.authenticating); err != nil {
		c.guard.log.Warn("embedded kafka closed a connection", slog.Any("reason", err),
			slog.String("peer", c.RemoteAddr().String()))
		return err
	}
	switch key := int16(binary.BigEndian.Uint16(c.head[4:])); {
	case slices.Contains(loginKeys, key):
	case !c.loggedIn:
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		c.loggedIn = true
	}
	if int16(binary.BigEndian.Uint16(c.head[4:])) == keySaslAuthenticate {
		c.authenticating = true
		c.pending(loginRefused(int16(binary.BigEndian.Uint16(c.head[6:])), c.head[8:12]))
	}
	c.headLeft = frameHead
	c.bodyLeft = int64(binary.BigEndian.Uint32(c.head[:])) - (frameHead - 4)
	return nil
}

func (c *guardedConn) pending(answer []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.login
	c.login = answer
	return was
}

func (c *guardedConn) Write(p []byte) (int, error) {
	c.pending(nil)
	return c.Conn.Write(p)
}

// Close tells a client whose login kfake has refused so: kfake only hangs up,
// which clients take for a reason to try again.
func (c *guardedConn) Close() error {
	c.once.Do(func() {
		c.guard.leave()
		answer := c.pending(nil)
		if answer == nil || c.SetWriteDeadline(time.Now().Add(time.Second)) != nil {
			return
		}
		_, err := c.Conn.Write(answer)
		c.guard.log.Warn("embedded kafka refused a login", slog.String("peer", c.RemoteAddr().String()),
			slog.Bool("client_told", err == nil))
	})
	return c.Conn.Close()
}

// loginRefused is a SaslAuthenticate response with SASL_AUTHENTICATION_FAILED.
// Source: https://kafka.apache.org/protocol#The_Messages_SaslAuthenticate
func loginRefused(version int16, correlation []byte) []byte {
	const code, message = 58, "wrong user or password"
	b := append(make([]byte, 4), correlation...)
	if version >= 2 { // compact forms and tags
		b = append(b, 0)
		b = binary.BigEndian.AppendUint16(b, code)
		b = append(b, byte(len(message)+1))
		b = append(b, message...)
		b = append(b, 1) // no bytes
	} else {
		b = binary.BigEndian.AppendUint16(b, code)
		b = binary.BigEndian.AppendUint16(b, uint16(len(message)))
		b = append(b, message...)
		b = binary.BigEndian.AppendUint32(b, 0)
	}
	if version >= 1 {
		b = binary.BigEndian.AppendUint64(b, 0) // session lifetime
	}
	if version >= 2 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}
