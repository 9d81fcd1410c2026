/* Control functions: they only return a constant. The costs of readers are compared with theirs. */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static text *preset_text;
static pg_uuid_t preset_uuid;
static TimestampTz preset_expiry = PG_INT64_MAX;

void
_PG_init(void)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

	preset_text = cstring_to_text("user-0000007");
	preset_uuid.data[15] = 7;
	MemoryContextSwitchTo(before);
}

/* returns a constant text */
PG_FUNCTION_INFO_V1(control_text);
Datum
control_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(preset_text);
}

/* returns the same text, or NULL after its expiry */
PG_FUNCTION_INFO_V1(control_text_until);
Datum
control_text_until(PG_FUNCTION_ARGS)
{
	if (GetCurrentStatementStartTimestamp() >= preset_expiry)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(preset_text);
}

/* returns a constant uuid */
PG_FUNCTION_INFO_V1(control_uuid);
Datum
control_uuid(PG_FUNCTION_ARGS)
{
	PG_RETURN_UUID_P(&preset_uuid);
}
