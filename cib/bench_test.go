package cib

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// BenchmarkInterpret shows the speed for a small, a big and a huge cluster; B/op beside the size is the memory,
// without crm_mon's own.
func BenchmarkInterpret(b *testing.B) {
	client := &Client{Timeout: time.Minute}
	for _, size := range []int{15_000, 300_000, 5_000_000} {
		data := generatedCIB(size)
		b.Run(fmt.Sprintf("%dkB", size/1000), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Interpret(b.Context(), data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// generatedCIB makes a CIB of about the size: a promotable clone on each three nodes, sixteen nodes at most, and on each
// node as many other resources as it takes.
func generatedCIB(size int) []byte {
	var config, nodes, status bytes.Buffer
	const bytesAnOperation = 640
	hosts := min(3+size/100_000, 16)
	for host := range hosts {
		if host%3 == 0 {
			fmt.Fprintf(&config, `
      <clone id="ms%[1]d">
        <meta_attributes id="ms%[1]d-meta"><nvpair id="ms%[1]d-p" name="promotable" value="true"/></meta_attributes>
        <primitive id="pgsql%[1]d" class="ocf" provider="heartbeat" type="pgsql">
          <instance_attributes id="pgsql%[1]d-a">
            <nvpair name="pgctl" value="/usr/lib/postgresql/15/bin/pg_ctl" id="pgsql%[1]d-a-pgctl"/>
            <nvpair name="node_list" value="pm01 pm02 pm03" id="pgsql%[1]d-a-node_list"/>
            <nvpair name="rep_mode" value="sync" id="pgsql%[1]d-a-rep_mode"/>
          </instance_attributes>
        </primitive>
      </clone>`, host/3)
		}
		fmt.Fprintf(&nodes, "\n      <node id=\"%[1]d\" uname=\"pm%02[1]d\"/>", host)
		fmt.Fprintf(&status, `
    <node_state id="%[1]d" uname="pm%02[1]d" in_ccm="true" crmd="online" crm-debug-origin="do_update_resource" join="member" expected="member">
      <lrm id="%[1]d"><lrm_resources>`, host)
		operation(&status, fmt.Sprintf("pgsql%d", host/3), host)
		for other := range (size/hosts - 3*bytesAnOperation) / (5 * bytesAnOperation / 2) {
			operation(&status, fmt.Sprintf("vip%d", other), host)
		}
		status.WriteString("\n      </lrm_resources></lrm>\n    </node_state>")
	}
	for other := range (size/hosts - 3*bytesAnOperation) / (5 * bytesAnOperation / 2) {
		fmt.Fprintf(&config, "\n      <primitive id=\"vip%d\" class=\"ocf\" provider=\"heartbeat\" type=\"IPaddr2\"/>", other)
	}
	return []byte(`<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="47" num_updates="15" admin_epoch="0" have-quorum="1" dc-uuid="1">
  <configuration>
    <crm_config/>
    <nodes>` + nodes.String() + "\n    </nodes>\n    <resources>" + config.String() + `
    </resources>
    <constraints/>
  </configuration>
  <status>` + status.String() + "\n  </status>\n</cib>\n")
}

func operation(b *bytes.Buffer, resource string, host int) {
	fmt.Fprintf(b, `
        <lrm_resource id="%s" type="pgsql" class="ocf" provider="heartbeat">`, resource)
	for call, task := range []string{"monitor", "start", "promote"}[:2+host%2] {
		key := "12:42:0:4fe152cd-0709-489f-be86-f616ea064e34"
		fmt.Fprintf(b, `
          <lrm_rsc_op id="%[1]s_last_%[3]d" operation_key="%[1]s_%[2]s_0" operation="%[2]s" crm-debug-origin="build_active_RAs" crm_feature_set="3.16.1" transition-key="%[4]s" transition-magic="0:0;%[4]s" exit-reason="" on_node="pm01" call-id="%[3]d" rc-code="0" op-status="0" interval="0" last-rc-change="1795425279" exec-time="2274" queue-time="0" op-digest="%[5]s"/>`,
			resource, task, call+1, key, strings.Repeat("f", 32))
	}
	b.WriteString("\n        </lrm_resource>")
}

// Of the memory that a look takes, encoding/xml alone takes five times the size of the CIB.
func TestMemoryOfALook(t *testing.T) {
	client := &Client{Timeout: time.Minute}
	for _, size := range []int{300_000, 5_000_000} {
		data := generatedCIB(size)
		if _, err := client.Interpret(t.Context(), data); err != nil { // and what is asked once
			t.Fatal(err)
		}
		memory := allocated(func() { _, _ = client.Interpret(t.Context(), data) })
		t.Logf("%d bytes: %.1f times as much memory", len(data), float64(memory)/float64(len(data)))
		if memory > 12*uint64(len(data)) {
			t.Errorf("%d bytes took %d bytes of memory, more than 12 times as much", len(data), memory)
		}
	}
}

// allocated is what a function allocates, in bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
