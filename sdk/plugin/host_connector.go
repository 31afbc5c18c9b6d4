package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/safeio"
)

// Connector is a connector in a process of its own. It may be used from several
// goroutines at once.
type Connector struct {
	process     *Process
	rpc         pb.ConnectorClient
	description connector.Description
}

// Connector asks the plugin to describe itself as a connector. A plugin that is
// none breaks the contract.
func (p *Process) Connector(ctx context.Context) (*Connector, error) {
	c := &Connector{process: p, rpc: pb.NewConnectorClient(p.conn)}
	d, err := c.rpc.Describe(ctx, &pb.DescribeRequest{})
	if err != nil {
		return nil, fmt.Errorf("describe connector: %w", p.fault(ctx, err))
	}
	c.description = connector.Description{Name: d.GetName(), Version: d.GetVersion()}
	if err := errors.Join(predicate.ValidateID(d.GetName()), predicate.ValidateID(d.GetVersion())); err != nil {
		return nil, fmt.Errorf("describe connector: %w", &ContractError{Err: err})
	}
	return c, nil
}

// Describe returns what the connector said of itself when it was asked first.
func (c *Connector) Describe() connector.Description { return c.description }

// Process is the process that the connector runs in.
func (c *Connector) Process() *Process { return c.process }

// Refused is how often the connector asked for a place that it may not reach.
func (c *Connector) Refused() uint64 { return c.process.Refused() }

var errRoot = errors.New("the root is not UTF-8, so that no plugin can be asked for it: name a folder above it")

// List is the connector contract's. Its items are checked: each within bounds,
// and in ascending order of path.
func (c *Connector) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		fail := func(err error) { yield(artifact.Item{}, fmt.Errorf("list: %w", err)) }
		if !utf8.ValidString(root) {
			fail(errRoot)
			return
		}
		stream, err := c.rpc.List(ctx, &pb.ListRequest{Root: root})
		if err != nil {
			fail(c.process.fault(ctx, err))
			return
		}
		last := artifact.Item{}
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				fail(c.process.fault(ctx, err))
				return
			}
			for _, in := range part.GetItems() {
				item := itemIn(in)
				if err := follows(last, item); err != nil {
					fail(err)
					return
				}
				if !yield(item, nil) {
					return
				}
				last = item
			}
		}
	}
}

// follows reports whether item is fit to be listed after last.
func follows(last, item artifact.Item) error {
	if err := ValidateItem(item); err != nil {
		return contractf("item: %w", err)
	}
	if item.Path < last.Path || item.Key == last.Key {
		return contractf("item %s after %s", words(item.Path), words(last.Path))
	}
	return nil
}

// Open is the connector contract's. The reader lives until it is closed or ctx
// ends, whichever is first, when its bytes come over the connection; a
// descriptor needs nobody.
func (c *Connector) Open(ctx context.Context, root, key string) (artifact.Reader, error) {
	if !utf8.ValidString(root) || !utf8.ValidString(key) {
		return nil, fmt.Errorf("open: %w", errRoot)
	}
	o, err := c.rpc.Open(ctx, &pb.OpenRequest{Root: root, Key: key})
	if err != nil {
		return nil, fmt.Errorf("open: %w", c.process.fault(ctx, err))
	}
	if o.GetSize() < 0 {
		return nil, fmt.Errorf("open: %w", contractf("size %d", o.GetSize()))
	}
	if !o.GetDescriptor_() {
		return c.remote(ctx, o.GetHandle(), o.GetSize(), key), nil
	}
	f, err := c.process.fds.claim(ctx, o.GetHandle())
	if err != nil {
		if ctx.Err() == nil {
			err = contractf("%w", err)
		}
		return nil, fmt.Errorf("open: %w", err)
	}
	if f, err = readOnly(f); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	file, err := sized(f, key, o.GetSize())
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return file, nil
}

// readOnly takes f over. What only names a file is refused: to open it would be to
// read by this process's rights what the plugin itself may not.
func readOnly(f *os.File) (*os.File, error) {
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_PATH != 0 {
		return nil, errors.Join(contractf("the passed descriptor cannot be read"), err, f.Close())
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.Join(contractf("the passed descriptor is of no regular file"), err, f.Close())
	}
	fd, own, err := safeio.ReadOnly(int(f.Fd()))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !own {
		return f, nil
	}
	return os.NewFile(uintptr(fd), "passed"), f.Close()
}

// remote reads over the connection. The reader's calls end with ctx.
func (c *Connector) remote(ctx context.Context, handle uint64, size int64, name string) artifact.Reader {
	ctx, cancel := context.WithCancel(ctx)
	begin := func(off int64, n int) *call {
		q := newCall(n)
		// As many as a reader fetches ahead, and each ends with ctx.
		go func() {
			defer close(q.done)
			in, err := c.rpc.Read(ctx, &pb.ReadRequest{Handle: handle, Offset: off, Length: int32(n)})
			switch {
			case err != nil:
				q.err = c.process.fault(ctx, err)
			case len(in.GetData()) > n:
				q.err = contractf("%d bytes for %d", len(in.GetData()), n)
			case len(in.GetData()) < n:
				q.err = fmt.Errorf("%d bytes for %d: %w", len(in.GetData()), n, io.ErrUnexpectedEOF)
			default:
				q.data = in.GetData()
			}
		}()
		return q
	}
	end := func() error {
		defer cancel()
		// The plugin's handle is closed even when the reader's context has ended.
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer stop()
		_, err := c.rpc.Close(ctx, &pb.CloseRequest{Handle: handle})
		if err != nil {
			return fmt.Errorf("close: %w", c.process.fault(ctx, err))
		}
		return nil
	}
	return newRanges(name, size, begin, end)
}
