package model

// Code names a kind of finding. Codes are stable: scripts and documentation refer to them.
type Code string

// The findings of a plan. docs/findings.md tells what to do about each.
const (
	// What keeps pgrex from doing anything, or anything destructive.
	CodeNoPlan              Code = "NoPlan"
	CodeClusterUnknown      Code = "ClusterUnknown"
	CodeNodeDiffers         Code = "NodeDiffers"
	CodeNodeUnchecked       Code = "NodeUnchecked"
	CodeServerDown          Code = "ServerDown"
	CodeInTransition        Code = "InTransition"
	CodeSplitBrain          Code = "SplitBrain"
	CodeOutage              Code = "Outage"
	CodeNoQuorum            Code = "NoQuorum"
	CodeMaintenance         Code = "Maintenance"
	CodeOperationUnderWay   Code = "OperationUnderWay"
	CodeOperationUnfinished Code = "OperationUnfinished"
	CodeUnmanaged           Code = "Unmanaged"
	CodePaused              Code = "Paused"
	CodeCIBStale            Code = "CIBStale"
	CodeOtherSystem         Code = "OtherSystem"
	CodeTimelineDiffers     Code = "TimelineDiffers"
	CodePrimaryDiffers      Code = "PrimaryDiffers"
	CodeUpstreamUnknown     Code = "UpstreamUnknown"
	CodeNotReplicated       Code = "NotReplicated"
	CodeNotMember           Code = "NotMember"
	CodeUnsupportedVersion  Code = "UnsupportedVersion"
	CodeInvalidPolicy       Code = "InvalidPolicy"
	CodeAmbiguousParameter  Code = "AmbiguousParameter"

	// What is not as it should be.
	CodeAgentOwnsSlots    Code = "AgentOwnsSlots"
	CodeCapacityShort     Code = "CapacityShort"
	CodeNameCollision     Code = "NameCollision"
	CodeNotAttached       Code = "NotAttached"
	CodeHoldNotProtective Code = "HoldNotProtective"
	CodeRebuildRequired   Code = "RebuildRequired"
	CodeRejoinNeeded      Code = "RejoinNeeded"
	CodeStopped           Code = "Stopped"
	CodeSlotBusy          Code = "SlotBusy"
	CodeOrphan            Code = "Orphan"
	CodeForeignSlot       Code = "ForeignSlot"
	CodeUnknownMember     Code = "UnknownMember"
	CodeSlotMissing       Code = "SlotMissing"
	CodeIdleTimeout       Code = "IdleTimeout"
	CodeSlotAwaited       Code = "SlotAwaited"
	CodeFailoverSlotLeft  Code = "FailoverSlotLeft"
	CodeTimelineKept      Code = "TimelineKept"
	CodeNewestUnchecked   Code = "NewestUnchecked"

	// What there is to say of the WAL that slots hold.
	CodeSlotLagging       Code = "SlotLagging"
	CodeBudgetNearlySpent Code = "BudgetNearlySpent"
	CodeBudgetSpent       Code = "BudgetSpent"
	CodeBudgetWaits       Code = "BudgetWaits"
	CodeBudgetPinned      Code = "BudgetPinned"
	CodeDiskNearlyFull    Code = "DiskNearlyFull"
	CodeWALSpaceShort     Code = "WALSpaceShort"
	CodeWALSpaceUnknown   Code = "WALSpaceUnknown"
	CodeArchiveFails      Code = "ArchiveFails"
	CodeSlotLost          Code = "SlotLost"
	CodeXMinHeld          Code = "XminHeld"

	// What a setting may lead to; pgrex doctor alone says these.
	CodeRewindImpossible  Code = "RewindImpossible"
	CodeSendersShort      Code = "SendersShort"
	CodeNoWALBudget       Code = "NoWALBudget"
	CodeWALKeptShort      Code = "WALKeptShort"
	CodeRestartAfterCrash Code = "RestartAfterCrash"
	CodeAlterSystemOff    Code = "AlterSystemOff"
	CodeVersionsClash     Code = "VersionsClash"
	CodeOwnerInHaclient   Code = "OwnerInHaclient"
	CodeConfigDiffers     Code = "ConfigDiffers"
	CodeRecoveryTarget    Code = "RecoveryTarget"
)
