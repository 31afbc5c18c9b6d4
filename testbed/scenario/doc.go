// Package scenario drives the built programs through what must hold: kills at
// every mark and at random, hostile messages, wrong input, and the commands of
// the documents. What they come to is judged from outside, by package ledger.
package scenario
