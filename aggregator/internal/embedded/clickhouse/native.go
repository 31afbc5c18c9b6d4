package clickhouse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// reencode copies a result in the Native format of revision 0, which is what
// the engine writes to a buffer, as Native of the client's revision. It holds
// one block at a time.
func reencode(w io.Writer, data []byte, revision uint64) error {
	reader := chproto.NewReader(bytes.NewReader(data))
	buffer := new(chproto.Buffer)
	server := &column.ServerContext{Revision: revision, Timezone: time.UTC}
	for {
		block := proto.Block{ServerContext: server}
		if err := block.Decode(reader, 0); err != nil {
			// The end is clean only where a block could start.
			if errors.Is(err, io.EOF) && len(block.Columns) == 0 {
				return nil
			}
			return fmt.Errorf("decode result block: %w", err)
		}
		buffer.Reset()
		if err := block.Encode(buffer, revision); err != nil {
			return fmt.Errorf("encode result block: %w", err)
		}
		if _, err := w.Write(buffer.Buf); err != nil {
			return fmt.Errorf("send result block: %w", err)
		}
	}
}
