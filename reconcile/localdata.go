package reconcile

import "github.com/pgrex/pgrex/model"

// LocalData is what a stopped server's data folder tells. What it does not tell is zero.
type LocalData struct {
	SystemID   string
	Timelines  []model.Timeline // the oldest first
	End        model.LSN        // of its WAL
	Changed    model.LSN        // its blocks may hold changes up to here; 0 if they hold none beyond End
	Segment    uint64           // bytes of a WAL segment
	Bytes      uint64           // in the data folder, without WAL; 0 if it was not measured
	Free       uint64           // on its file system, in bytes
	FileSystem uint64           // its number
	// Gone is why the database, or a part of it, is not in its place; "" if all of it is.
	Gone string
	// WAL is how much WAL PostgreSQL will come to keep here, in bytes. Where pg_wal is on a file system of its own
	// (WALApart), WALFree is what is free there.
	WAL, WALFree uint64
	WALApart     bool
	// Unreadable is why the data are of no use, "" if Timelines and End are known. Unconfigured is why PostgreSQL cannot
	// read its settings here; "" if it can.
	Unreadable, Unconfigured string
	// TooLow is why PostgreSQL cannot start as a standby with its settings here and these data; "" if it can. Data that
	// come from the primary replace what these data need.
	TooLow string
	// NoRewind is why pg_rewind cannot work here, "" if it can; NoCopy the same for a copy.
	NoRewind, NoCopy string
	// Backup is set for data that were restored from a backup and have not yet replayed all WAL of the backup;
	// otherwise nil. If no WAL from Backup.Start on is here, End is Backup.Start. If no history file is here, Timelines
	// has only the newest timeline, without its beginning.
	Backup *Backup
}

// Backup is what backup_label says of a backup. Once PostgreSQL has begun to replay, the control file says it.
type Backup struct {
	Timeline   uint32
	Start      model.LSN // WAL is needed from here on
	Checkpoint model.LSN // the record with which recovery begins
	End        model.LSN // the data are consistent from here on; 0 if only the WAL tells where that is
}
