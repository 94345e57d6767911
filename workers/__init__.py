"""Every way to compute: the Celery workers, their tasks, engines and document readers."""
