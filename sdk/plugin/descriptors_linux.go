package plugin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors is one end of the socket that passes open files, each labelled
// with a handle. What arrives waits, boundedly, until its handle is claimed.
type descriptors struct {
	conn *net.UnixConn
	// turn serialises senders, so that a deadline belongs to one of them.
	turn chan struct{}

	mu      sync.Mutex
	arrived map[uint64]*os.File
	waiting map[uint64]chan *os.File
	err     error
	done    chan struct{}
}

// socketPair makes the two ends. Messages keep their bounds, so that a label
// and its descriptor cannot come apart.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "descriptors"), os.NewFile(uintptr(fds[1]), "descriptors"), nil
}

// newDescriptors takes f over and begins to receive, until close.
func newDescriptors(f *os.File) (*descriptors, error) {
	conn, err := unixConn(f)
	if err != nil {
		return nil, fmt.Errorf("open descriptor socket: %w", err)
	}
	d := &descriptors{
		conn: conn, turn: make(chan struct{}, 1), done: make(chan struct{}),
		arrived: map[uint64]*os.File{}, waiting: map[uint64]chan *os.File{},
	}
	go d.receive()
	return d, nil
}

// send passes fd on, labelled with handle.
func (d *descriptors) send(ctx context.Context, handle uint64, fd int) error {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := d.conn.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("pass descriptor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = d.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _, err := d.conn.WriteMsgUnix(binary.BigEndian.AppendUint64(nil, handle), unix.UnixRights(fd), nil)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("pass descriptor: %w", err)
	}
	return nil
}

// claim waits for the descriptor labelled handle, which the caller then owns.
func (d *descriptors) claim(ctx context.Context, handle uint64) (*os.File, error) {
	d.mu.Lock()
	if f, ok := d.arrived[handle]; ok {
		delete(d.arrived, handle)
		d.mu.Unlock()
		return f, nil
	}
	if d.err != nil || d.waiting[handle] != nil {
		err := d.err
		d.mu.Unlock()
		return nil, errors.Join(fmt.Errorf("claim descriptor %d: it will not come", handle), err)
	}
	w := make(chan *os.File, 1)
	d.waiting[handle] = w
	d.mu.Unlock()
	select {
	case f := <-w:
		return f, nil
	case <-d.done:
	case <-ctx.Done():
	}
	d.mu.Lock()
	delete(d.waiting, handle)
	err := d.err
	d.mu.Unlock()
	select {
	case f := <-w:
		return f, nil
	default:
	}
	return nil, errors.Join(fmt.Errorf("claim descriptor %d: it did not come", handle), context.Cause(ctx), err)
}

func (d *descriptors) receive() {
	defer close(d.done)
	for {
		handle, f, err := d.next()
		d.mu.Lock()
		if err != nil {
			d.err = err
			for _, f := range d.arrived {
				_ = f.Close()
			}
			clear(d.arrived)
			d.mu.Unlock()
			_ = d.conn.Close() // what else would come is not kept
			return
		}
		d.put(handle, f)
		d.mu.Unlock()
	}
}

// put is called with the lock held. A label that is used again closes what it
// stood for.
func (d *descriptors) put(handle uint64, f *os.File) {
	if w := d.waiting[handle]; w != nil {
		delete(d.waiting, handle)
		w <- f
		return
	}
	if old := d.arrived[handle]; old != nil {
		_ = old.Close()
	} else if len(d.arrived) >= pendingDescriptors {
		oldest := slices.Min(slices.Collect(maps.Keys(d.arrived)))
		_ = d.arrived[oldest].Close()
		delete(d.arrived, oldest)
	}
	d.arrived[handle] = f
}

// next receives one message: eight bytes of label and one descriptor. Anything
// else ends the socket's use.
func (d *descriptors) next() (uint64, *os.File, error) {
	var label [9]byte
	// Room for more than one, so that a second is seen and closed.
	control := make([]byte, unix.CmsgSpace(4*4))
	n, cn, flags, _, err := d.conn.ReadMsgUnix(label[:], control)
	if err != nil {
		return 0, nil, fmt.Errorf("receive descriptor: %w", err)
	}
	fds, err := rights(control[:cn])
	if err == nil && n == 8 && len(fds) == 1 && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) == 0 {
		return binary.BigEndian.Uint64(label[:8]), os.NewFile(uintptr(fds[0]), "passed"), nil
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	return 0, nil, errors.Join(fmt.Errorf("receive descriptor: message of %d bytes with %d descriptors", n, len(fds)), err)
}

func rights(control []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(control)
	var fds []int
	for _, m := range msgs {
		got, perr := unix.ParseUnixRights(&m)
		fds, err = append(fds, got...), errors.Join(err, perr)
	}
	return fds, err
}

// close ends receiving and waits for it.
func (d *descriptors) close() error {
	err := d.conn.Close()
	<-d.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// keepDescriptors keeps from what this process starts the descriptors that it was
// started with itself: a lock of a shell's, say, or a socket of its supervisor's.
func keepDescriptors() error {
	err := unix.CloseRange(socketFd, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	names, err := os.ReadDir("/proc/self/fd") // Linux before 5.11
	if err != nil {
		return fmt.Errorf("keep descriptors: %w", err)
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name.Name()); err == nil && fd >= socketFd {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
