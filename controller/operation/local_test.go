package operation

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pgrex/pgrex/model"
)

// A record that ends on its page, one that ends with it, and those that go on over a page's or a segment's header.
func TestRecordEnd(t *testing.T) {
	const segment = 16 << 20
	for _, c := range []struct {
		start  model.LSN
		length uint64
		want   model.LSN
	}{
		{0x1000028, 30, 0x1000048},
		{0x1001FE0, 32, 0x1002000},
		{0x1001FE0, 40, 0x1002020},
		{0x1FFFFE0, 40, 0x2000030},
		{0x1001FE0, 8192 + 32, 0x1004030},
	} {
		if got := recordEnd(c.start, c.length, segment); got != c.want {
			t.Errorf("%d bytes from %s end at %s, not at %s", c.length, c.start, got, c.want)
		}
	}
}

// primary_slot_name is put right in whatever is there, once, and nothing else is touched.
func TestSetSlotName(t *testing.T) {
	p := place{data: t.TempDir()}
	file := filepath.Join(p.data, "postgresql.auto.conf")
	for before, want := range map[string]string{
		"": "primary_slot_name = 'pgrex_pm01'\n",
		"# no edits\nwork_mem = '8MB'\nprimary_slot_name = 'pgrex_pm03'\nprimary_slot_name = ''\nfsync = 'on'\n": "# no edits\nwork_mem = '8MB'\nfsync = 'on'\nprimary_slot_name = 'pgrex_pm01'\n",
	} {
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.setSlotName("pgrex_pm01"); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%v\n%s", err, got)
		}
	}
}

func TestSetting(t *testing.T) {
	const text = "a = 1\nprimary_conninfo = 'host=x password=''y'' z' # why\nb = two # a comment\nb=three\n"
	for name, want := range map[string]string{"a": "1", "primary_conninfo": "host=x password='y' z", "b": "three", "c": ""} {
		if got := setting(text, name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
}
