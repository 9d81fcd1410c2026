/* A library that defines request.jwt.claims, as one may. */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static char *claims;
static int	count;

static void
count_assigned(const char *value, void *extra)
{
	count++;
}

void
_PG_init(void)
{
	DefineCustomStringVariable("request.jwt.claims", "Claims.", NULL, &claims, NULL,
							   PGC_USERSET, 0, NULL, count_assigned, NULL);
}

/* how often the setting was given a value */
PG_FUNCTION_INFO_V1(assigned);
Datum
assigned(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(count);
}
