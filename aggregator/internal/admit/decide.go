package admit

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/chain"
)

// decision grows message by message, in the order of their offsets.
type decision struct {
	r       *row.Range
	chains  map[control.ChainID]*control.Chain
	rows    row.Batch
	updates []control.ChainUpdate
	// update is where a chain is in updates.
	update map[control.ChainID]int
}

// decide places the statements and writes the rows.
func decide(r *row.Range, found []finding, chains map[control.ChainID]*control.Chain) (*row.Batch, []control.ChainUpdate, error) {
	d := &decision{r: r, chains: chains, update: map[control.ChainID]int{}}
	d.rows.Receipts = make([]row.Receipt, 0, len(found)+len(r.Unreadable))
	if r.Lost {
		d.rows.Receipts = append(d.rows.Receipts, row.Receipt{
			Topic: r.Topic, Partition: r.Partition, Offset: r.From, LastOffset: r.To - 1,
			Outcome: Lost, Digest: row.ZeroDigest, ReceivedAt: r.PlannedAt,
		})
	}
	unreadable := r.Unreadable
	for i := range found {
		m := &r.Messages[i]
		for len(unreadable) > 0 && unreadable[0].First < m.Offset {
			d.skip(&unreadable[0])
			unreadable = unreadable[1:]
		}
		if err := d.message(m, &found[i]); err != nil {
			return nil, nil, fmt.Errorf("decide on offset %d: %w", m.Offset, err)
		}
	}
	for i := range unreadable {
		d.skip(&unreadable[i])
	}
	return &d.rows, d.updates, nil
}

func (d *decision) message(m *row.Message, f *finding) error {
	receipt := row.Receipt{
		Topic: d.r.Topic, Partition: d.r.Partition, Offset: m.Offset, LastOffset: m.Offset,
		Bytes: uint64(len(m.Value)), ReceivedAt: d.r.PlannedAt,
	}
	if f.key != nil {
		receipt.Tenant, receipt.Agent, receipt.Epoch = f.key.Tenant, f.key.Agent, f.key.Epoch
	}
	if f.statement == nil {
		receipt.Outcome, receipt.Reason = Refused, string(f.refused)
		receipt.Digest = predicate.DigestOf(m.Value).Hex()
		d.quarantine(&receipt, f.detail, m.Value)
		return nil
	}
	outcome, err := d.place(f)
	if err != nil {
		return err
	}
	receipt.Outcome, receipt.Sequence, receipt.Digest = string(outcome), f.statement.Place().Sequence, f.digest.Hex()
	d.rows.Receipts = append(d.rows.Receipts, receipt)
	if outcome != chain.Replayed {
		keep(&d.rows, &receipt, f.statement, m.Value)
	}
	return nil
}

// place finds a statement's outcome and adds it to its chain.
func (d *decision) place(f *finding) (chain.Outcome, error) {
	id, l := f.key.Chain(), f.statement.Place()
	c := d.chains[id]
	outcome, err := chain.Place(c, l, f.digest)
	if err != nil {
		return "", err
	}
	placed := control.Placed{Link: control.Link{Sequence: l.Sequence, Digest: f.digest, Previous: l.Previous}, Outcome: outcome}
	if outcome == chain.Forked {
		there, err := c.At(l.Sequence)
		if err != nil {
			return "", err
		}
		if len(there) > 0 {
			placed.Other = there[0]
		}
	}
	c.Add(placed.Link)
	i, ok := d.update[id]
	if !ok {
		i = len(d.updates)
		d.update[id] = i
		d.updates = append(d.updates, control.ChainUpdate{ID: id, SeenAt: d.r.PlannedAt})
	}
	u := &d.updates[i]
	u.Statements = append(u.Statements, placed)
	if h, ok := f.statement.(*predicate.Heartbeat); ok && outcome != chain.Replayed && (u.Heartbeat == nil || u.Heartbeat.Sequence < h.Sequence) {
		u.Heartbeat = h
	}
	return outcome, nil
}

// skip accounts for offsets that hold nothing that can be read.
func (d *decision) skip(u *row.Unreadable) {
	reason := MalformedEnvelope
	if u.TooLarge {
		reason = TooLarge
	}
	d.quarantine(&row.Receipt{
		Topic: d.r.Topic, Partition: d.r.Partition, Offset: u.First, LastOffset: u.Last,
		Outcome: Refused, Reason: string(reason), Digest: u.Digest, ReceivedAt: d.r.PlannedAt,
	}, u.Err.Error(), nil)
}

func (d *decision) quarantine(receipt *row.Receipt, detail string, value []byte) {
	d.rows.Receipts = append(d.rows.Receipts, *receipt)
	d.rows.Quarantine = append(d.rows.Quarantine, row.Quarantined{
		Tenant: receipt.Tenant, Topic: receipt.Topic, Partition: receipt.Partition,
		Offset: receipt.Offset, LastOffset: receipt.LastOffset, Reason: receipt.Reason,
		Detail: printable(detail), Digest: receipt.Digest, Bytes: receipt.Bytes,
		Message: value[:min(len(value), row.MaxQuarantined)], ReceivedAt: receipt.ReceivedAt,
	})
}

// maxDetail bounds an explanation, in bytes.
const maxDetail = 512

// printable makes an error's text, which may quote a message, fit to be shown.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}
