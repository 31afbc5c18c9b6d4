package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/safeio"
)

// connectorServer is the plugin's side of the connector service.
type connectorServer struct {
	pb.UnimplementedConnectorServer
	connector connector.Connector
	fds       *descriptors

	mu   sync.Mutex
	last uint64
	open map[uint64]*handle
}

// handle is a reader that the host holds open.
type handle struct {
	reader artifact.Reader
	cancel context.CancelFunc
}

func newConnectorServer(c connector.Connector, fds *descriptors) *connectorServer {
	return &connectorServer{connector: c, fds: fds, open: map[uint64]*handle{}}
}

func (s *connectorServer) Describe(context.Context, *pb.DescribeRequest) (*pb.ConnectorDescription, error) {
	d := s.connector.Describe()
	return &pb.ConnectorDescription{Name: d.Name, Version: d.Version}, nil
}

func (s *connectorServer) List(in *pb.ListRequest, stream grpc.ServerStreamingServer[pb.ListResponse]) error {
	part, size := &pb.ListResponse{}, 0
	for item, err := range s.connector.List(stream.Context(), in.GetRoot()) {
		if err != nil {
			return failure(err)
		}
		part.Items = append(part.Items, itemOut(item))
		size += 64 + len(item.Key) + len(item.Path) + len(item.Bundle)
		if size < partBytes && len(part.Items) < maxItemsPart {
			continue
		}
		if err := stream.Send(part); err != nil {
			return err
		}
		part, size = &pb.ListResponse{}, 0
	}
	if len(part.Items) == 0 {
		return nil
	}
	return stream.Send(part)
}

func (s *connectorServer) Open(ctx context.Context, in *pb.OpenRequest) (*pb.Opened, error) {
	// The reader outlives the call: its context ends with its handle.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	r, err := s.connector.Open(life, in.GetRoot(), in.GetKey())
	if !stop() && err == nil {
		err = errors.Join(context.Cause(ctx), r.Close())
	}
	if err != nil {
		cancel()
		return nil, failure(err)
	}
	out := &pb.Opened{Size: r.Size()}
	if d, ok := r.(artifact.Descriptor); ok && s.fds != nil {
		defer cancel()
		s.mu.Lock()
		s.last++
		out.Handle, out.Descriptor_ = s.last, true
		s.mu.Unlock()
		if err := errors.Join(pass(ctx, s.fds, out.Handle, d), r.Close()); err != nil {
			return nil, failure(err)
		}
		return out, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= maxHandles {
		cancel()
		return nil, errors.Join(status.Errorf(codes.ResourceExhausted, "%d handles are open", len(s.open)), r.Close())
	}
	s.last++
	out.Handle = s.last
	s.open[s.last] = &handle{reader: r, cancel: cancel}
	return out, nil
}

// pass sends a descriptor that is open for reading only.
func pass(ctx context.Context, fds *descriptors, handle uint64, d artifact.Descriptor) error {
	fd, own, err := safeio.ReadOnly(int(d.Fd()))
	if err != nil {
		return err
	}
	if own {
		defer closeFd(fd)
	}
	return fds.send(ctx, handle, fd)
}

func (s *connectorServer) Read(_ context.Context, in *pb.ReadRequest) (*pb.ReadResponse, error) {
	s.mu.Lock()
	h := s.open[in.GetHandle()]
	s.mu.Unlock()
	if h == nil {
		return nil, failure(fmt.Errorf("read handle %d: %w", in.GetHandle(), fs.ErrClosed))
	}
	n := in.GetLength()
	if n < 0 || n > chunk || in.GetOffset() < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "length %d at %d", n, in.GetOffset())
	}
	p := make([]byte, n)
	got, err := h.reader.ReadAt(p, in.GetOffset())
	if got < len(p) && !errors.Is(err, io.EOF) {
		return nil, failure(err)
	}
	return &pb.ReadResponse{Data: p[:got]}, nil
}

func (s *connectorServer) Close(_ context.Context, in *pb.CloseRequest) (*pb.CloseResponse, error) {
	s.mu.Lock()
	h := s.open[in.GetHandle()]
	delete(s.open, in.GetHandle())
	s.mu.Unlock()
	if h == nil {
		return &pb.CloseResponse{}, nil
	}
	defer h.cancel()
	if err := h.reader.Close(); err != nil {
		return nil, failure(err)
	}
	return &pb.CloseResponse{}, nil
}
