package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/diskio/diskfault"
	"github.com/cavra/cavra/sdk/diskio/syscallfault"
)

// diskRole is the first argument of the process whose disk fails.
const diskRole = "disk-child"

// brokerAway says that nothing is published.
const brokerAway = "CAVRA_SPOOL_BROKER_AWAY"

// diskChild does what crashChild does, and opens the spool again when its disk
// has failed, as the agent does. What the disk answered goes to the file
// "troubles" outside of the spool.
func diskChild(args []string) error {
	from, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	troubles, err := os.OpenFile(filepath.Join(args[0], "troubles"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	for ; ; from += 100_000 {
		err := appendAndPublish(args[0], from, os.Getenv(brokerAway) == "")
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			return err
		}
		if _, err := fmt.Fprintf(troubles, "\n%d %v.", int(errno), err); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// over starts a process over a disk that decide lets fail.
func over(t *testing.T, role, dir string, run int, decide func(syscallfault.Call) syscallfault.Fate, env ...string) (*exec.Cmd, *syscallfault.Disk) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, role, dir, strconv.Itoa(run*1_000_000_000))
	c.Stdout, c.Stderr = t.Output(), t.Output()
	c.Env = append(os.Environ(), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d, err := syscallfault.Start(c, filepath.Join(dir, "spool"), decide)
	if err != nil {
		t.Fatal(err)
	}
	return c, d
}

// mustDie waits for the process, which has to be killed in time.
func mustDie(t *testing.T, c *exec.Cmd, d *syscallfault.Disk, in string) {
	t.Helper()
	limit := time.AfterFunc(time.Minute, func() {
		t.Errorf("%s: the process did not go on", in)
		_ = c.Process.Kill()
	})
	err := c.Wait()
	limit.Stop()
	if !killed(err) {
		t.Fatalf("%s: ended with %v", in, err)
	}
	if err := d.Wait(); err != nil {
		t.Fatal(err)
	}
}

// long is how much more a test does when the long run is asked for.
func long(t *testing.T, bounded, long int) int {
	t.Helper()
	if os.Getenv("CAVRA_SPOOL_LONG") != "" {
		return long
	}
	return bounded
}

// ailment is what a disk does to some calls in a row.
type ailment struct {
	name string
	op   diskfault.Op // "" for any
	fate syscallfault.Fate
	// times is how many calls it is done to.
	times int
}

var ailments = []ailment{
	{"a write fails", diskfault.Write, syscallfault.Fate{Errno: unix.EIO}, 1},
	{"a write is torn", diskfault.Write, syscallfault.Fate{Errno: unix.EIO, Torn: true}, 1},
	{"writes are short", diskfault.Write, syscallfault.Fate{Torn: true, Bytes: 7}, 20},
	{"a write finds the disk full, with a part of it written", diskfault.Write, syscallfault.Fate{Errno: unix.ENOSPC, Torn: true}, 1},
	{"a sync fails", diskfault.Sync, syscallfault.Fate{Errno: unix.EIO}, 1},
	{"syncs fail again and again", diskfault.Sync, syscallfault.Fate{Errno: unix.EIO}, 7},
	{"a sync finds the disk full", diskfault.Sync, syscallfault.Fate{Errno: unix.ENOSPC}, 1},
	{"a sync finds the quota used up", diskfault.Sync, syscallfault.Fate{Errno: unix.EDQUOT}, 2},
	{"a folder's sync fails", diskfault.SyncDir, syscallfault.Fate{Errno: unix.EIO}, 1},
	{"a file cannot be opened", diskfault.Open, syscallfault.Fate{Errno: unix.EIO}, 1},
	{"a rename fails", diskfault.Rename, syscallfault.Fate{Errno: unix.EIO}, 1},
	{"a file cannot be deleted", diskfault.Remove, syscallfault.Fate{Errno: unix.EIO}, 1},
	{"a file cannot be cut", diskfault.Truncate, syscallfault.Fate{Errno: unix.EIO}, 1},
	{"the disk is read-only for a while", "", syscallfault.Fate{Errno: unix.EROFS}, 60},
	{"every call fails for a while", "", syscallfault.Fate{Errno: unix.EIO}, 60},
}

// TestTheDiskFails has every kind of call fail in a process that goes on by
// itself, then ends it, with the power too: what Append returned for is there, no
// sequence number is public twice, and since the disk came back, nothing is lost.
func TestTheDiskFails(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	run, opened, statements := 1, 0, 0
	for range long(t, 1, 20) {
		dir := t.TempDir()
		for _, a := range ailments {
			ends := []string{"", "power cut", "power cut, broker away"}
			if a.op != diskfault.Sync && long(t, 0, 1) == 0 {
				ends = ends[run%3:][:1]
			}
			for _, more := range ends {
				name := a.name + ", " + more
				var env []string
				if strings.Contains(more, "broker") {
					env = append(env, brokerAway+"=1")
				}
				skip, done, after, syncs := rnd.IntN(12), 0, 0, 0
				c, d := over(t, diskRole, dir, run, func(call syscallfault.Call) syscallfault.Fate {
					if call.Op == diskfault.Sync {
						syncs++
					}
					switch {
					case done < a.times && (a.op == "" || a.op == call.Op):
						if skip--; skip >= 0 {
							return syscallfault.Fate{}
						}
						done++
						fate := a.fate
						if fate.Torn && fate.Bytes == 0 {
							fate.Bytes = rnd.IntN(call.Size)
						}
						return fate
					case done >= a.times && call.Op == diskfault.Sync:
						after++
					}
					// Where nothing is published, some calls never come.
					return syscallfault.Fate{Kill: after > 10 || syncs > 100}
				}, env...)
				mustDie(t, c, d, name)
				if more != "" {
					if err := d.Cut(); err != nil {
						t.Fatal(err)
					}
				}
				run++
				judge(t, dir)
				if t.Failed() {
					t.Fatalf("after: %s", name)
				}
			}
		}
		opened += len(lines(t, filepath.Join(dir, "troubles")))
		statements += judge(t, dir)
	}
	t.Logf("%d runs, %d times the spool was opened again, %d statements", run-1, opened, statements)
}

// TestKilledInsideAWrite kills the process in the middle of a write, of which a
// part has reached the file, and half of the time cuts the power with it.
func TestKilledInsideAWrite(t *testing.T) {
	var dir string
	rnd := rand.New(rand.NewPCG(9, 9))
	kills, statements := long(t, 30, 1000), 0
	for run := 1; run <= kills; run++ {
		if run%100 == 1 {
			dir = t.TempDir()
		}
		left := rnd.IntN(40)
		c, d := over(t, crashRole, dir, run, func(call syscallfault.Call) syscallfault.Fate {
			if call.Op != diskfault.Write {
				return syscallfault.Fate{}
			}
			left--
			return syscallfault.Fate{Kill: left < 0, Torn: left < 0, Bytes: rnd.IntN(call.Size + 1)}
		})
		mustDie(t, c, d, "run "+strconv.Itoa(run))
		if run%2 == 0 {
			if err := d.Cut(); err != nil {
				t.Fatal(err)
			}
		}
		if run%10 == 0 {
			n := judge(t, dir)
			if run%100 == 0 || run == kills {
				statements += n
			}
		}
	}
	t.Logf("%d kills inside a write, half of them with a power cut, %d statements", kills, statements)
}

// mounted says that this process may mount what nobody else sees.
const mounted = "CAVRA_SPOOL_MOUNTS"

// private keeps what is mounted from now on in this process's namespace.
func private(t *testing.T) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

// withMounts runs the test again in a mount namespace of its own.
func withMounts(t *testing.T) {
	t.Helper()
	c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), mounted+"=1")
	c.Stdout, c.Stderr = t.Output(), t.Output()
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	err := c.Run()
	if errors.Is(err, syscall.EPERM) && os.Getenv("CI") == "" {
		t.Skipf("no mount namespace can be made here (run as root, or allow user namespaces): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// grows waits until the process has appended more than so many times, or has met
// with so many troubles.
func grows(t *testing.T, file string, beyond int) int {
	t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		n := len(lines(t, file))
		if n > beyond {
			return n
		}
		if time.Now().After(limit) {
			t.Fatalf("%s stays at %d lines", filepath.Base(file), n)
		}
		wait(20 * time.Millisecond)
	}
}

// wait lets the process work.
func wait(d time.Duration) { <-time.After(d) }

// TestAFullDisk fills the spool's disk with another file, kills and starts the
// process while it is full, and frees it: appending waits meanwhile, and goes on.
func TestAFullDisk(t *testing.T) {
	if os.Getenv(mounted) == "" {
		withMounts(t)
		return
	}
	private(t)
	dir := t.TempDir()
	disk := filepath.Join(dir, "spool")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ledger := filepath.Join(dir, "ledger")
	for run := 1; run <= 3; run++ {
		c := startRole(t, exe, diskRole, dir, run)
		grows(t, ledger, len(lines(t, ledger))+3)
		filler := filepath.Join(disk, "filler")
		fill(t, filler)
		if run == 2 {
			kill(t, c)
			c = startRole(t, exe, diskRole, dir, run*100)
		}
		stands := settled(t, ledger)
		wait(500 * time.Millisecond)
		if now := len(lines(t, ledger)); now != stands {
			t.Errorf("run %d: %d appends on a full disk", run, now-stands)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		grows(t, ledger, stands+3)
		kill(t, c)
		judge(t, dir)
	}
}

func startRole(t *testing.T, exe, role, dir string, run int) *exec.Cmd {
	t.Helper()
	c := exec.Command(exe, role, dir, strconv.Itoa(run*1_000_000_000))
	c.Stdout, c.Stderr = t.Output(), t.Output()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func kill(t *testing.T, c *exec.Cmd) {
	t.Helper()
	_ = c.Process.Kill() // it may have ended already, which killed tells
	if err := c.Wait(); !killed(err) {
		t.Fatalf("ended with %v", err)
	}
}

// fill takes all the room that a disk has.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it cannot hold what is written
	for full := 0; full < 20; {
		if _, err = f.Write(make([]byte, 4096)); errors.Is(err, unix.ENOSPC) {
			full++
			wait(10 * time.Millisecond)
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// settled waits until a file has stopped to grow.
func settled(t *testing.T, file string) int {
	t.Helper()
	last, since := -1, time.Now()
	for time.Since(since) < 300*time.Millisecond {
		if n := len(lines(t, file)); n != last {
			last, since = n, time.Now()
		}
		wait(20 * time.Millisecond)
	}
	return last
}

// TestADiskThatTurnsReadOnly has the kernel itself find an error in an ext4 file
// system, which makes it read-only under the running process, and then mounts it
// anew.
func TestADiskThatTurnsReadOnly(t *testing.T) {
	if os.Getenv(mounted) == "" {
		withMounts(t)
		return
	}
	private(t)
	dir := t.TempDir()
	disk, image := filepath.Join(dir, "spool"), filepath.Join(dir, "image")
	device := ext4(t, disk, image)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ledger, troubles := filepath.Join(dir, "ledger"), filepath.Join(dir, "troubles")
	c := startRole(t, exe, diskRole, dir, 1)
	before := grows(t, ledger, 3)
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error")
	// The write that finds the error is answered with it.
	if err := os.WriteFile(trigger, []byte("1"), 0); err != nil && !errors.Is(err, unix.EROFS) {
		t.Fatal(err)
	}
	grows(t, troubles, 3)
	if said := lines(t, troubles)[0]; !strings.HasPrefix(said, strconv.Itoa(int(unix.EROFS))+" ") && !strings.HasPrefix(said, strconv.Itoa(int(unix.EIO))+" ") {
		t.Errorf("the process says %q", said)
	}
	stands := settled(t, ledger)
	unmount(t, c, disk)
	if out, err := exec.Command("e2fsck", "-fy", device).CombinedOutput(); err != nil && exitCode(err) != 1 {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	command(t, "mount", device, disk)
	if err := c.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	grows(t, ledger, max(before, stands)+3)
	kill(t, c)
	judge(t, dir)
}

// unmount waits for a moment in which the process has nothing open, and stops it
// there.
func unmount(t *testing.T, c *exec.Cmd, at string) {
	t.Helper()
	for range 1000 {
		if err := c.Process.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		wait(5 * time.Millisecond) // it stops a little later
		err := unix.Unmount(at, 0)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
		if err := c.Process.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		wait(time.Duration(rand.N(3)) * time.Millisecond)
	}
	t.Fatal("the process never lets go of its disk")
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// ext4 mounts a new file system from a file, and names its device.
func ext4(t *testing.T, at, image string) string {
	t.Helper()
	for _, program := range []string{"mkfs.ext4", "losetup"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no file system can be made here: %v", err)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); errors.Is(err, fs.ErrNotExist) || os.Geteuid() != 0 {
		t.Skip("no file system can be mounted from a file here: that takes root and loop devices")
	}
	if err := errors.Join(os.Mkdir(at, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20)); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", image)
	device := strings.TrimSpace(command(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() {
		_ = unix.Unmount(at, unix.MNT_DETACH)
		command(t, "losetup", "--detach", device)
	})
	command(t, "mount", "-o", "errors=remount-ro", device, at)
	return device
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
