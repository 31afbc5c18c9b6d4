package ingest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
	"github.com/cavra/cavra/aggregator/internal/ingest/kafka/recordbatch"
	"github.com/cavra/cavra/aggregator/internal/row"
)

// MismatchError says that the log does not hold any more what a plan was made
// of. Offsets have been written anew (a topic that was deleted and made again, a
// broker that lost its disk), and no insert can be right for both.
type MismatchError struct {
	Topic      string
	Partition  int
	From, Next int64
	Problem    string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("read plan of %s/%d again: offsets [%d, %d): %s: the log was rewritten under the aggregator; "+
		"restore it, or count the range as lost with `cavra-aggregator ingest give-up`", e.Topic, e.Partition, e.From, e.Next, e.Problem)
}

// sum is the digest over all that a range holds. Every part has its length
// before it, or a fixed one, so that no two ranges are spelled alike.
func sum(r *kafka.Range) [sha256.Size]byte {
	h := sha256.New()
	var b []byte
	number := func(n int64) { b = binary.BigEndian.AppendUint64(b, uint64(n)) }
	number(int64(len(r.Messages)))
	for i := range r.Messages {
		m := &r.Messages[i]
		number(m.Offset)
		number(int64(len(m.Value)))
		h.Write(b)
		h.Write(m.Value)
		b = b[:0]
	}
	number(int64(len(r.Unreadable)))
	for i := range r.Unreadable {
		u := &r.Unreadable[i]
		number(u.First)
		number(u.Last)
		b = append(b, u.SHA256[:]...)
	}
	h.Write(b)
	return [sha256.Size]byte(h.Sum(nil))
}

// lostSum stands in the plan of a range that the log has dropped. No range that
// was read has it.
func lostSum() [sha256.Size]byte { return sha256.Sum256([]byte("cavra: range lost")) }

// matches compares what was read again with the plan.
func matches(p *control.Plan, r *kafka.Range) error {
	problem := ""
	switch {
	case r.From != p.From || r.Next != p.Next:
		problem = fmt.Sprintf("the log gave [%d, %d)", r.From, r.Next)
	case int64(len(r.Messages)) != p.Count:
		problem = fmt.Sprintf("%d messages where there were %d", len(r.Messages), p.Count)
	case sum(r) != p.SHA256:
		problem = "other messages than there were"
	default:
		return nil
	}
	return &MismatchError{Topic: p.Topic, Partition: p.Partition, From: p.From, Next: p.Next, Problem: problem}
}

// ranged is what a plan covers, as admission takes it.
func ranged(p *control.Plan, r *kafka.Range) *row.Range {
	out := &row.Range{
		Topic: p.Topic, Partition: int32(p.Partition), From: p.From, To: p.Next, PlannedAt: p.CreatedAt,
		Lost: p.SHA256 == lostSum(), Messages: make([]row.Message, len(r.Messages)),
	}
	for i := range r.Messages {
		out.Messages[i] = row.Message{Offset: r.Messages[i].Offset, Value: r.Messages[i].Value}
	}
	for i := range r.Unreadable {
		u := &r.Unreadable[i]
		out.Unreadable = append(out.Unreadable, row.Unreadable{
			First: max(u.First, p.From), Last: min(u.Last, p.Next-1), Digest: hex.EncodeToString(u.SHA256[:]),
			TooLarge: errors.Is(u.Err, recordbatch.ErrTooLarge), Err: u.Err,
		})
	}
	return out
}

// token names a plan's rows: the plan, and what was decided on it. Decisions are
// the same at every run but in one case, a key that is enrolled after a message
// that it signed was first looked at; then the later decision has to be written
// and not be taken for a repetition.
func token(p *control.Plan, b *row.Batch) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s/%d/%d/%d/%x/%s\n", p.Topic, p.Partition, p.From, p.Next, p.SHA256, p.CreatedAt.UTC().Format(time.RFC3339Nano))
	for i := range b.Receipts {
		r := &b.Receipts[i]
		_, _ = fmt.Fprintf(h, "%d %s %s %s\n", r.Offset, r.Outcome, r.Reason, r.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}
