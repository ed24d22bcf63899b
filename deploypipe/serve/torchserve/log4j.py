"""How TorchServe logs: JSON lines of what matters, in files that are rotated and bounded."""

from pathlib import Path
from xml.sax.saxutils import quoteattr

FILES = ("server", "workers")
"""`server.log`: the front end; `workers.log`: whatever workers print. The names without `.log`."""

FILE_SIZE, OLDER_FILES = 5_000_000, 2
"""Bytes at which a file is rotated, and how many rotated ones are kept of each."""

LONGEST = 10_000
"""Characters kept of a message or a traceback."""

MOST_BYTES = len(FILES) * (1 + OLDER_FILES) * (FILE_SIZE + 2 * 6 * LONGEST + 1000)
"""All that the files can hold: a file may go over by one event, and JSON may spend six bytes on a character."""

_CONFIGURATION = """\
<?xml version="1.0" encoding="UTF-8"?>
<!-- TorchServe's own logging writes several lines a request, twice. Here no more than ten events a second are kept
     after a first burst, so that a flood of errors does not rotate away what came before it. -->
<Configuration status="ERROR" shutdownHook="disable">
  <Appenders>
    {appenders}
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="MODEL_LOG" level="info" additivity="false"><AppenderRef ref="workers"/></Logger>
    <Logger name="org.pytorch.serve.ModelServer" level="info"/>
    <Logger name="org.pytorch.serve.wlm.ModelManager" level="info"/>
    <Logger name="org.pytorch.serve.wlm.WorkerThread" level="info">
      <RegexFilter regex="(Looping backend response|Backend response time).*" useRawMsg="true"
                   onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Root level="warn"><AppenderRef ref="server"/></Root>
  </Loggers>
</Configuration>
"""

_APPENDER = """\
    <RollingFile name="{name}" fileName={file} filePattern={older}>
      <BurstFilter level="FATAL" rate="10" maxBurst="1000"/>
      <PatternLayout charset="UTF-8" alwaysWriteExceptions="false" pattern={pattern}/>
      <Policies><SizeBasedTriggeringPolicy size="{size}"/></Policies>
      <DefaultRolloverStrategy max="{count}"/>
    </RollingFile>"""


def _escaped(converter: str) -> str:
    """A pattern for what `converter` gives, fit to stand in a JSON string."""
    return f"%enc{{%maxLen{{{converter}}}{{{LONGEST}}}}}{{JSON}}"


_TIME = """{"time":"%d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC}","""
# A worker's line breaks travel as vertical tabs; see `worker_log.py`.
_LINES = rf"%replace{{{_escaped('%m')}}}{{\\u000[bB]}}{{\\n}}"
_PATTERNS = {
    "server": f'{_TIME}"level":"%p","logger":"%c{{1}}","message":"{_escaped("%m")}"'
    f'%notEmpty{{,"error":"{_escaped("%ex")}"}}}}%n',
    "workers": f'{_TIME}"worker":"%t","message":"{_LINES}"}}%n',
}


def configuration(folder: Path) -> str:
    """The content of log4j2.xml for logs in `folder`."""
    appenders = (
        _APPENDER.format(
            name=name,
            file=quoteattr(str(folder / f"{name}.log")),
            older=quoteattr(str(folder / f"{name}.%i.log")),
            pattern=quoteattr(_PATTERNS[name]),
            size=FILE_SIZE,
            count=OLDER_FILES,
        )
        for name in FILES
    )
    return _CONFIGURATION.format(appenders="\n".join(appenders).strip())
