package kafka

import (
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka/recordbatch"
)

// errAcks closes the connection of a client that would not learn that its write
// was refused, as a Kafka broker does.
var errAcks = errors.New("write without acknowledgement was refused")

// guardProduce has every write checked before kfake takes it. kfake believes the
// record count in a batch's header, from which it derives the partition's next
// offset: a batch that lies would move it anywhere, back included.
//
// One refused batch refuses its whole request, with one reason for all.
func (b *Broker) guardProduce(c *kfake.Cluster, u *usage) {
	limits := b.batchLimits()
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		produce, ok := req.(*kmsg.ProduceRequest)
		if !ok {
			return nil, errRequest, true
		}
		refusal := b.examine(produce, limits, u)
		if refusal == nil {
			return nil, nil, false
		}
		if produce.Acks == 0 {
			return nil, errAcks, true
		}
		return refuse(produce, refusal), nil, true
	})
}

// examine returns why a write is refused, or nil.
func (b *Broker) examine(req *kmsg.ProduceRequest, limits recordbatch.Limits, u *usage) *kerr.Error {
	var total int64
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			total += int64(len(p.Records))
			if err := checkRecords(p.Records, limits); err != nil {
				b.log.Warn("embedded kafka refused a write", slog.String("topic", t.Topic), slog.Any("error", err))
				if errors.Is(err, recordbatch.ErrTooLarge) {
					return kerr.MessageTooLarge
				}
				return kerr.InvalidRecord
			}
		}
	}
	if u.full(total) {
		b.refused.Add(1)
		return kerr.KafkaStorageError
	}
	u.add(total)
	return nil
}

func checkRecords(raw []byte, limits recordbatch.Limits) error {
	if len(raw) > limits.Bytes {
		return recordbatch.ErrTooLarge
	}
	batch, rest, ok := recordbatch.Split(raw)
	if !ok || len(rest) != 0 {
		return recordbatch.ErrMalformed
	}
	decoded, err := recordbatch.Decode(batch, limits)
	if err != nil {
		return err
	}
	// A fresh batch has no holes, and only brokers write control batches.
	if n := int64(len(decoded.Records)); n == 0 || decoded.Control || decoded.First != 0 || decoded.Last != n-1 {
		return recordbatch.ErrMalformed
	}
	return nil
}

func refuse(req *kmsg.ProduceRequest, reason *kerr.Error) *kmsg.ProduceResponse {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.BaseOffset = p.Partition, reason.Code, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
