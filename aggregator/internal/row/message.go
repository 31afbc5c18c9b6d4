package row

import "time"

// Message is one record of the topic, as it came. Only its value counts: key and
// headers are not signed.
type Message struct {
	Offset int64
	Value  []byte
}

// Unreadable is a range of offsets, both ends included, whose record batch could
// not be decoded.
type Unreadable struct {
	First, Last int64
	// Digest is that of the batch's bytes, in 64 hexadecimal digits.
	Digest string
	// TooLarge says that the batch broke a limit and not the format.
	TooLarge bool
	Err      error
}

// Range is what a plan covers: the offsets [From, To) of a partition, and what
// the log holds there, in ascending order of offsets.
type Range struct {
	Topic     string
	Partition int32
	From, To  int64
	// PlannedAt is when the plan was recorded: the time of every decision on it,
	// however often it is made.
	PlannedAt time.Time
	// Lost says that the log held nothing of the range any more when it was
	// planned: its retention was faster than we were.
	Lost       bool
	Messages   []Message
	Unreadable []Unreadable
}
