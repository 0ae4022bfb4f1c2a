"""Mends what moto's Step Functions engine lacks: it hands parameters of StartExecution on with the large initials that a
definition writes them with, and its own client takes them with small ones only. The service knows both."""

from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sfn import StateTaskServiceSfn

normalise = StateTaskServiceSfn._normalise_parameters


def normalise_with_small_initials(self, parameters, *args, **kwargs):
    normalise(self, parameters, *args, **kwargs)
    for name in list(parameters):
        parameters[name[0].lower() + name[1:]] = parameters.pop(name)


StateTaskServiceSfn._normalise_parameters = normalise_with_small_initials
