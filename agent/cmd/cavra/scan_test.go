package main

import "testing"

func TestAtOnce(t *testing.T) {
	for _, tt := range []struct{ jobs, memory, want int }{{8, 0, 8}, {8, 256, 1}, {8, 511, 1}, {8, 512, 2}, {2, 4096, 2}, {1, 256, 1}} {
		if got := (scanOptions{jobs: tt.jobs, memory: tt.memory}).atOnce(); got != tt.want {
			t.Errorf("%d jobs in %d MiB: %d at once, want %d", tt.jobs, tt.memory, got, tt.want)
		}
	}
}
