// Package wire captures everything that is sent in a network namespace of its
// own, and looks for canaries in it: words that stand where secrets would, in any
// spelling in which they could leave.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is the environment variable that says that this process is in a
// namespace that Isolated has made.
const Namespace = "CAVRA_WIRE_NAMESPACE"

// Isolated is this program again, with args, in a mount namespace of its own, and
// in a network namespace that holds a loopback interface that is down, and nothing
// else. Root makes them as it is, others with a user namespace of their own.
func Isolated(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), Namespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// errOutside protects the machine's own network.
var errOutside = errors.New("not in a namespace of its own")

// Mend starts the namespace's one interface.
func Mend() error { return loopback(unix.IFF_UP | unix.IFF_RUNNING) }

// Cut stops it: what is on its way is lost, and connections wait.
func Cut() error { return loopback(0) }

func loopback(flags uint16) error {
	if os.Getenv(Namespace) == "" {
		return errOutside
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set loopback: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("set loopback: %w", err)
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set loopback: %w", err)
	}
	return nil
}

// Capture gathers every frame that leaves by any interface of the namespace.
type Capture struct {
	fd     int
	done   chan struct{}
	ending chan struct{}

	mu     sync.Mutex
	frames [][]byte
	err    error
}

// receiveBuffer holds what comes while the reader is away, in bytes. A frame that
// is lost all the same is an error, see Stop.
const receiveBuffer = 256 << 20

// Start brings the loopback interface up and captures.
func Start() (*Capture, error) {
	if err := Mend(); err != nil {
		return nil, err
	}
	all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	wait := unix.NsecToTimeval((50 * time.Millisecond).Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		bufferFor(fd),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture: %w", err), unix.Close(fd))
	}
	c := &Capture{fd: fd, done: make(chan struct{}), ending: make(chan struct{})}
	go c.read()
	return c, nil
}

func bufferFor(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	if errors.Is(err, unix.EPERM) { // in a user namespace
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	return err
}

func (c *Capture) read() {
	defer close(c.done)
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			select {
			case <-c.ending:
				return
			default:
				continue
			}
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype != unix.PACKET_OUTGOING {
			continue // loopback shows each frame again as it arrives
		}
		c.mu.Lock()
		c.frames = append(c.frames, slices.Clone(buf[:n]))
		c.mu.Unlock()
	}
}

// Stop ends the capture and returns what was sent. Frames that were lost are an
// error: nobody could say then what was in them.
func (c *Capture) Stop() (Traffic, error) {
	close(c.ending)
	<-c.done
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err = errors.Join(c.err, err, unix.Close(c.fd)); err != nil {
		return Traffic{}, fmt.Errorf("capture: %w", err)
	}
	if stats.Drops > 0 {
		return Traffic{}, fmt.Errorf("capture: %d frames were lost", stats.Drops)
	}
	return assemble(c.frames), nil
}

// Traffic is what was sent: the streams of TCP, each way for itself, and the
// frames of anything else.
type Traffic struct {
	Frames  int
	Streams []Stream
	Others  [][]byte
}

// Stream is one way of a TCP connection.
type Stream struct {
	From, To uint16
	Bytes    []byte
}

// To are the streams to a port.
func (t Traffic) To(port uint16) (out []Stream) {
	for _, s := range t.Streams {
		if s.To == port {
			out = append(out, s)
		}
	}
	return out
}

// String sums the traffic up.
func (t Traffic) String() string {
	var total int
	for _, s := range t.Streams {
		total += len(s.Bytes)
	}
	return fmt.Sprintf("%d frames, %d streams of TCP with %d bytes, %d other frames", t.Frames, len(t.Streams), total, len(t.Others))
}

const ethernetHeader = 14

type segment struct {
	sequence uint32
	syn      bool
	payload  []byte
}

// assemble puts streams together by their sequence numbers.
func assemble(frames [][]byte) Traffic {
	out := Traffic{Frames: len(frames)}
	segments := map[[2]string][]segment{}
	var order [][2]string
	for _, f := range frames {
		ends, s, ok := tcp(f)
		if !ok {
			out.Others = append(out.Others, f)
			continue
		}
		if segments[ends] == nil {
			order = append(order, ends)
		}
		segments[ends] = append(segments[ends], s)
	}
	for _, ends := range order {
		for _, b := range streams(segments[ends]) {
			out.Streams = append(out.Streams, Stream{From: port(ends[0]), To: port(ends[1]), Bytes: b})
		}
	}
	return out
}

func port(end string) uint16 { return binary.BigEndian.Uint16([]byte(end[len(end)-2:])) }

// tcp takes an Ethernet frame apart.
func tcp(f []byte) (ends [2]string, s segment, ok bool) {
	if len(f) < ethernetHeader+20 {
		return ends, s, false
	}
	kind, b := binary.BigEndian.Uint16(f[12:]), f[ethernetHeader:]
	var from, to string
	switch {
	case kind == unix.ETH_P_IP && b[9] == unix.IPPROTO_TCP:
		header := int(b[0]&15) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		if total == 0 { // segmentation is left to the interface
			total = len(b)
		}
		if header < 20 || total > len(b) || total < header {
			return ends, s, false
		}
		from, to, b = string(b[12:16]), string(b[16:20]), b[header:total]
	case kind == unix.ETH_P_IPV6 && len(b) >= 40 && b[6] == unix.IPPROTO_TCP:
		from, to, b = string(b[8:24]), string(b[24:40]), b[40:]
	default:
		return ends, s, false
	}
	if len(b) < 20 || int(b[12]>>4)*4 > len(b) {
		return ends, s, false
	}
	s = segment{sequence: binary.BigEndian.Uint32(b[4:]), syn: b[13]&2 != 0, payload: b[int(b[12]>>4)*4:]}
	return [2]string{from + string(b[:2]), to + string(b[2:4])}, s, true
}

// streams orders segments; a SYN begins another stream on the same ports.
func streams(segments []segment) (out [][]byte) {
	var b strings.Builder
	next, begun := uint32(0), false
	var waiting []segment
	flush := func() {
		slices.SortStableFunc(waiting, func(a, c segment) int { return int(int32(a.sequence - c.sequence)) })
		for _, s := range waiting {
			if ahead := int32(s.sequence - next); begun && ahead < 0 { // sent again
				if int(-ahead) >= len(s.payload) {
					continue
				}
				s.payload, s.sequence = s.payload[-ahead:], next
			}
			b.Write(s.payload)
			next, begun = s.sequence+uint32(len(s.payload)), true
		}
		if b.Len() > 0 {
			out = append(out, []byte(b.String()))
		}
		b.Reset()
		waiting, begun = nil, false
	}
	for _, s := range segments {
		if s.syn {
			flush()
			continue
		}
		if len(s.payload) > 0 {
			waiting = append(waiting, s)
		}
	}
	flush()
	return out
}
